"""Two ways to train: workers that wait for each other, and workers that do not.

A program for Ray; `zray run examples/written_for_ray/parameter_server.py` runs it as it is.
"""

import numpy as np
import ray
from ray.exceptions import GetTimeoutError

DIMENSIONS, WORKERS, ROUNDS, RATE = 10, 3, 40, 0.3


@ray.remote
class ParameterServer:
    def __init__(self):
        self.weights = np.zeros(DIMENSIONS)

    def apply(self, *gradients):
        self.weights = self.weights - RATE * np.mean(gradients, axis=0)
        return self.weights

    def get_weights(self):
        return self.weights


@ray.remote
class Worker:
    def __init__(self, seed, truth):
        self.random = np.random.default_rng(seed)
        self.truth = truth

    def gradient(self, weights):
        batch = self.random.normal(size=(64, DIMENSIONS))
        return batch.T @ (batch @ (weights - self.truth)) / len(batch)


def main():
    ray.init(ignore_reinit_error=True)
    truth = ray.put(np.arange(DIMENSIONS, dtype=float))
    workers = [Worker.remote(seed, truth) for seed in range(WORKERS)]

    server = ParameterServer.remote()
    weights = server.get_weights.remote()
    for _ in range(ROUNDS):
        weights = server.apply.remote(*[worker.gradient.remote(weights) for worker in workers])
    print(f"synchronous: off by {np.abs(ray.get(weights) - ray.get(truth)).max():.3f}")

    server = ParameterServer.remote()
    weights = ray.get(server.get_weights.remote())
    waiting = {worker.gradient.remote(weights): worker for worker in workers}
    for _ in range(ROUNDS * WORKERS):
        ready, _ = ray.wait(list(waiting))
        worker = waiting.pop(ready[0])
        weights = server.apply.remote(ready[0])
        waiting[worker.gradient.remote(weights)] = worker
    try:
        last = ray.get(weights, timeout=30)
    except GetTimeoutError:
        raise SystemExit("the server is stuck") from None
    print(f"asynchronous: off by {np.abs(last - ray.get(truth)).max():.3f}")


if __name__ == "__main__":
    main()
