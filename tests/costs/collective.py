"""Bandwidth of collective calls beside torch's gloo, in the same processes and the same run.

``python tests/costs/collective.py [members] [repeats]``; needs torch in the environment. Of each
size, both sides take turns, and the best of the rounds counts.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

import zray
from zray.util import collective

SIZES = (4 << 10, 256 << 10, 4 << 20, 64 << 20)
CALLS = ("allreduce", "broadcast", "allgather", "reduce")


@zray.remote(num_cpus=0)
class Member:
    def join(self, rank: int, world_size: int, port: int) -> None:
        """In a group of either side."""
        import torch.distributed as dist

        collective.init_collective_group(world_size, rank, "gloo")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", rank=rank, world_size=world_size)
        self.dist: Any = dist
        self.world_size = world_size
        self._check(rank)

    def _check(self, rank: int) -> None:
        """Whether tensors of torch are taken, those that numpy has no words for included."""
        import torch

        tensor = torch.full((2, 2), float(rank + 1))
        collective.allreduce(tensor)
        assert bool((tensor == sum(range(1, self.world_size + 1))).all())
        half = torch.full((3,), float(rank), dtype=torch.bfloat16)
        collective.broadcast(half, 1)
        assert bool((half == 1.0).all())
        weight = torch.nn.Linear(2, 2).weight
        collective.broadcast(weight, 0)
        collective.allgather(parts := [torch.zeros(4) for _ in range(self.world_size)], weight)
        assert all(bool((part == weight.reshape(-1)).all()) for part in parts)

    def time(self, call: str, size: int, repeats: int, gloo: bool) -> float:
        """Seconds of one call, in the mean of so many."""
        import torch

        array = np.ones(size // 4, np.float32)
        tensor = torch.from_numpy(array)
        arrays = [np.empty_like(array) for _ in range(self.world_size)]
        tensors = [torch.from_numpy(one) for one in arrays]
        dist = self.dist
        calls = {
            ("allreduce", False): lambda: collective.allreduce(array, op=collective.ReduceOp.MAX),
            ("allreduce", True): lambda: dist.all_reduce(tensor, op=dist.ReduceOp.MAX),
            ("broadcast", False): lambda: collective.broadcast(array),
            ("broadcast", True): lambda: dist.broadcast(tensor, 0),
            ("allgather", False): lambda: collective.allgather(arrays, array),
            ("allgather", True): lambda: dist.all_gather(tensors, tensor),
            ("reduce", False): lambda: collective.reduce(array),
            ("reduce", True): lambda: dist.reduce(tensor, 0),
        }
        run = calls[call, gloo]
        run()
        collective.barrier()
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        collective.barrier()
        return (time.perf_counter() - began) / repeats


def main(world_size: int, rounds: int) -> None:
    """Print a line for each call and size."""
    zray.init(num_cpus=2)
    members = [Member.remote() for _ in range(world_size)]
    port = 20_000 + os.getpid() % 10_000
    zray.get([one.join.remote(rank, world_size, port) for rank, one in enumerate(members)])
    print(f"{world_size} members, MB/s of each tensor (and ms): zray, gloo")
    for call in CALLS:
        for size in SIZES:
            repeats = max(1, min(200, (16 << 20) // size))
            best = {True: float("inf"), False: float("inf")}
            for _ in range(rounds):
                for gloo in best:
                    took = max(
                        zray.get([one.time.remote(call, size, repeats, gloo) for one in members])
                    )
                    best[gloo] = min(best[gloo], took)
            own, theirs = best[False], best[True]
            print(
                f"{call:10} {size >> 10:6} KiB {size / own / 1e6:8.0f} ({1e3 * own:7.2f})"
                f" {size / theirs / 1e6:8.0f} ({1e3 * theirs:7.2f})  x{theirs / own:.2f}",
                flush=True,
            )
    zray.shutdown()


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:3]) if len(sys.argv) > 2 else (4, 3))
