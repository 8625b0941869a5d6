"""An anti-pattern: results in the order of submission; ``wait`` takes them as they come.

[0, 1, 2, 3]
last: 0
"""

import time

import ray

ray.init(num_cpus=4)


@ray.remote
def f(i):
    time.sleep(2.0 if i == 0 else 0.1 * i)
    return i


refs = [f.remote(i) for i in range(4)]
print(ray.get(refs))

refs = [f.remote(i) for i in range(4)]
unfinished = refs
order = []
while unfinished:
    finished, unfinished = ray.wait(unfinished, num_returns=1)
    order.append(ray.get(finished[0]))
print("last:", order[-1])
