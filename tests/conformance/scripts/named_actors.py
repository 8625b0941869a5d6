"""Named actors, get_if_exists, namespaces.

2 2 2
other namespace: not found
"""

import ray

ray.init(num_cpus=2, namespace="colors")


@ray.remote
class Greeter:
    def __init__(self, value):
        self.value = value

    def say_hello(self):
        return self.value


a = Greeter.options(name="g1", get_if_exists=True).remote(2)
b = Greeter.options(name="g1", get_if_exists=True).remote(3)
print(ray.get(a.say_hello.remote()), ray.get(b.say_hello.remote()), end=" ")
print(ray.get(ray.get_actor("g1").say_hello.remote()))
try:
    ray.get_actor("g1", namespace="other")
except ValueError:
    print("other namespace: not found")
