"""An anti-pattern: ``get`` in a loop; both ways give the same.

[0, 1, 4, 9]
[0, 1, 4, 9]
"""

import ray

ray.init()


@ray.remote
def f(i):
    return i**2


sequential_returns = []
for i in range(4):
    sequential_returns.append(ray.get(f.remote(i)))
print(sequential_returns)

refs = []
for i in range(4):
    refs.append(f.remote(i))
print(ray.get(refs))
