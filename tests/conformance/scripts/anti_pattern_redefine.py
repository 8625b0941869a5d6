"""An anti-pattern: a remote function that is defined anew in each call of another.

4.0 4.0
"""

import math

import ray

ray.init(num_cpus=2)


def outer(n):
    @ray.remote
    def compute_sqrt(x):
        return math.sqrt(x)

    return [ray.get(compute_sqrt.remote(16)) for _ in range(n)]


print(*outer(1), *outer(1))
