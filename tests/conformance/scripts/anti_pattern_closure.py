"""An anti-pattern: a large object in a closure; by reference it is the same.

1000000 1000000 1000000
"""

import numpy as np
import ray

ray.init(num_cpus=2)
large_object = np.zeros(1_000_000)


@ray.remote
def f1():
    return len(large_object)


large_object_ref = ray.put(large_object)


@ray.remote
def f2(large_object):
    return len(large_object)


@ray.remote
def f3(refs):
    return len(ray.get(refs[0]))


print(*ray.get([f1.remote(), f2.remote(large_object_ref), f3.remote([large_object_ref])]))
