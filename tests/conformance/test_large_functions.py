"""Contracts of functions and classes that have captured much."""

from __future__ import annotations

import numpy as np
import pytest
import ray

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.filterwarnings("ignore")]
MIB = 1 << 20


def capturing(size):
    """A function with so many bytes in its closure."""
    data = np.frombuffer(np.random.default_rng(1).bytes(size), np.uint8)

    def f():
        return int(data[-1]), len(data)

    return f


@pytest.mark.parametrize("mib", [2, 12, 70, 94])
def test_a_function_with_captured_objects(mib) -> None:
    """Up to 95 MiB of them."""
    plain = capturing(mib * MIB)
    f = ray.remote(plain)

    assert ray.get([f.remote() for _ in range(3)]) == [plain()] * 3
    assert ray.get(f.options(num_cpus=0.5).remote()) == plain()


@pytest.mark.parametrize("mib", [12, 70])
def test_a_class_with_captured_objects(mib) -> None:
    """The same for actors."""
    plain = capturing(mib * MIB)

    @ray.remote
    class Holding:
        def get(self):
            return plain()

    actors = [Holding.remote() for _ in range(2)]
    assert ray.get([actor.get.remote() for actor in actors]) == [plain()] * 2


def test_a_function_that_has_captured_too_much() -> None:
    """From 10**8 bytes it is a ValueError that says so, at the first call."""
    f = ray.remote(capturing(10**8))
    with pytest.raises(ValueError, match="too large"):
        f.remote()


def test_a_class_that_has_captured_too_much() -> None:
    """The same for actors."""
    plain = capturing(10**8)

    @ray.remote
    class Holding:
        def get(self):
            return plain()

    with pytest.raises(ValueError, match="too large"):
        Holding.remote()


def test_a_large_function_in_a_task() -> None:
    """A task may define and call one."""

    @ray.remote
    def outer():
        plain = capturing(12 * MIB)
        return ray.get(ray.remote(plain).remote()) == plain()

    assert ray.get(outer.remote())
