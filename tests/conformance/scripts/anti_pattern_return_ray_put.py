"""An anti-pattern: a task that returns what it has put.

value value value
"""

import numpy as np
import ray

ray.init(num_cpus=2)


@ray.remote
def task_with_single_small_return_value_bad():
    return ray.put("value")


@ray.remote
def task_with_single_small_return_value_good():
    return "value"


@ray.remote(num_returns=2)
def task_with_static_multiple_returns():
    return np.zeros(10), "value"


bad = ray.get(ray.get(task_with_single_small_return_value_bad.remote()))
good = ray.get(task_with_single_small_return_value_good.remote())
array, value = task_with_static_multiple_returns.remote()
print(bad, good, ray.get(value))
