"""AsyncIO for actors: concurrency, awaiting references, asyncio in the driver, threads.

started together: True
10
[0, 1, 2, 3]
threaded: 2
"""

import asyncio
import time

import ray

ray.init(num_cpus=4)


@ray.remote
class AsyncActor:
    def __init__(self):
        self.running = 0
        self.most = 0

    async def run_concurrent(self):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.3)
        self.running -= 1

    async def peak(self):
        return self.most


actor = AsyncActor.remote()
ray.get([actor.run_concurrent.remote() for _ in range(4)])
print("started together:", ray.get(actor.peak.remote()) == 4)


@ray.remote
def some_task(i=1):
    return i


@ray.remote
class Awaiting:
    async def go(self):
        values = await asyncio.gather(*[some_task.remote() for _ in range(10)])
        return sum(values)


print(ray.get(Awaiting.remote().go.remote()))


async def main():
    return await asyncio.gather(*[some_task.remote(i) for i in range(4)])


print(asyncio.run(main()))


@ray.remote(max_concurrency=2)
class ThreadedActor:
    def __init__(self):
        self.running = 0
        self.most = 0

    def task(self):
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(0.4)
        self.running -= 1
        return self.most


a = ThreadedActor.remote()
print("threaded:", max(ray.get([a.task.remote() for _ in range(4)])))
