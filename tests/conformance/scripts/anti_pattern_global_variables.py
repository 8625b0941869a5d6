"""An anti-pattern: a global is another one in each process; an actor shares it.

driver: 4, task: 4, shared: 5
"""

import ray

ray.init(num_cpus=1)
global_v = 3


@ray.remote
class A:
    def f(self):
        return global_v + 1


actor = A.remote()
global_v = 4
task = ray.get(actor.f.remote())


@ray.remote
class GlobalVarActor:
    def __init__(self):
        self.global_v = 3

    def set_global_v(self, v):
        self.global_v = v

    def get_global_v(self):
        return self.global_v


@ray.remote(num_cpus=0)
class B:
    def __init__(self, holder):
        self.holder = holder

    def f(self):
        return ray.get(self.holder.get_global_v.remote()) + 1


del actor
holder = GlobalVarActor.options(num_cpus=0).remote()
other = B.remote(holder)
ray.get(holder.set_global_v.remote(4))
print(f"driver: {global_v}, task: {task}, shared: {ray.get(other.f.remote())}")
