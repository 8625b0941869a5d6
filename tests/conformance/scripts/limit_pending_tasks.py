"""A pattern: ``ray.wait`` limits how many tasks are pending.

at most 10 pending: True
100 processed, sum 4950
"""

import ray

ray.init(num_cpus=2)


@ray.remote
class Actor:
    async def heavy_compute(self, i):
        return i


actor = Actor.remote()
MAX_NUM_PENDING_TASKS = 10
result_refs = []
processed = []
most = 0
for i in range(100):
    if len(result_refs) >= MAX_NUM_PENDING_TASKS:
        ready_refs, result_refs = ray.wait(result_refs, num_returns=1)
        processed += ray.get(ready_refs)
    result_refs.append(actor.heavy_compute.remote(i))
    most = max(most, len(result_refs))
processed += ray.get(result_refs)
print(f"at most {MAX_NUM_PENDING_TASKS} pending: {most <= MAX_NUM_PENDING_TASKS}")
print(f"{len(processed)} processed, sum {sum(processed)}")
