"""An anti-pattern: a large argument by value again and again.

10 10
"""

import numpy as np
import ray

ray.init(num_cpus=2)


@ray.remote
def func(large_arg, i):
    return len(large_arg) * 0 + 1


large_arg = np.random.rand(1024 * 1024)
by_value = [func.remote(large_arg, i) for i in range(10)]
ref = ray.put(large_arg)
by_ref = [func.remote(ref, i) for i in range(10)]
print(sum(ray.get(by_value)), sum(ray.get(by_ref)))
