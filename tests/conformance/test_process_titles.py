"""Contracts of the titles of worker processes: what ``ps`` shows while they run, and when idle."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray

pytestmark = pytest.mark.usefixtures("cluster")


def title(pid="self"):
    """Of a process, as ``ps`` has it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip("\0 ")


def becomes(pid, wanted):
    """Whether the title of the process ends with that soon."""
    deadline = time.monotonic() + 10
    while not title(pid).endswith(wanted):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@ray.remote
def my_function():
    import os

    return title(), os.getpid()


@ray.remote
class MyActor:
    def my_method(self):
        import os

        return title(), os.getpid()


def test_a_task_is_in_the_title() -> None:
    """``::`` and the function's name."""
    assert ray.get(my_function.remote())[0].endswith("::my_function")


def test_the_name_of_a_task_is_in_the_title() -> None:
    """What ``options(name=...)`` says, instead."""
    assert ray.get(my_function.options(name="some name").remote())[0].endswith("::some name")


def test_an_idle_worker_says_so() -> None:
    """``::IDLE`` once the task has ended."""
    _, pid = ray.get(my_function.remote())
    assert becomes(pid, "::IDLE")


def test_a_method_is_in_the_title() -> None:
    """Class and method."""
    assert ray.get(MyActor.remote().my_method.remote())[0].endswith("::MyActor.my_method")


def test_an_idle_actor_is_called_by_its_class() -> None:
    """``::`` and the class's name when no method runs."""
    actor = MyActor.remote()
    _, pid = ray.get(actor.my_method.remote())
    assert becomes(pid, "::MyActor")
