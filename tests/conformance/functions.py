"""Remote functions that contracts of several rows are told with."""

from __future__ import annotations

import time

import ray


@ray.remote
def same(value):
    return value


@ray.remote(num_cpus=0)
def slow(seconds, value=None):
    time.sleep(seconds)
    return value


@ray.remote(num_cpus=0)
def fail(seconds=0.0):
    time.sleep(seconds)
    raise ValueError("failed")


def until(happened, within_s=20.0):
    """Wait until it has."""
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.02)
