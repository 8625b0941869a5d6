"""Contracts of ActorPool: who works, in which order results come, and what ends a wait."""

from __future__ import annotations

import time

import pytest
import ray
from ray.util import ActorPool
from ray.util.actor_pool import ActorPool as FromItsModule

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote(num_cpus=0)
class Worker:
    def double(self, value):
        return 2 * value

    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds

    def fail(self, value):
        raise ValueError(f"no {value}")

    def pid(self, _value=None):
        import os

        return os.getpid()


def double(actor, value):
    return actor.double.remote(value)


def sleep(actor, seconds):
    return actor.sleep.remote(seconds)


def two():
    return ActorPool([Worker.remote(), Worker.remote()])


def test_both_paths_give_the_same_class() -> None:
    """``ray.util.ActorPool`` is the one of ``ray.util.actor_pool``."""
    assert ActorPool is FromItsModule


def test_map_gives_results_in_the_order_of_the_values() -> None:
    """However many there are for two actors."""
    pool = two()
    assert list(pool.map(double, range(50))) == [2 * n for n in range(50)]
    assert list(pool.map(double, [])) == []


def test_map_submits_before_the_first_result_is_taken() -> None:
    """Each actor has begun, though nobody has asked for a result."""
    pool = two()
    pool.map(sleep, [0, 0])
    assert pool.has_next() and not pool.has_free()


def test_map_unordered_gives_all_results() -> None:
    """In whatever order."""
    pool = two()
    assert sorted(pool.map_unordered(double, range(50))) == [2 * n for n in range(50)]


def test_map_unordered_gives_first_what_is_there_first() -> None:
    """A slow value does not hold the others up."""
    pool = two()
    assert list(pool.map_unordered(sleep, [2, 0, 0])) == [0, 0, 2]


def test_map_drops_what_was_submitted_before() -> None:
    """Results of earlier work do not mix with those of the map."""
    pool = two()
    pool.submit(double, 100)
    pool.submit(double, 200)
    assert list(pool.map(double, [1, 2, 3])) == [2, 4, 6]
    pool.submit(double, 100)
    assert sorted(pool.map_unordered(double, [1, 2, 3])) == [2, 4, 6]


def test_submit_and_get_next() -> None:
    """In the order of submission; more may be submitted than there are actors."""
    pool = two()
    for value in range(5):
        pool.submit(double, value)
    assert [pool.get_next() for _ in range(5)] == [0, 2, 4, 6, 8]
    assert not pool.has_next()


def test_get_next_without_anything_left() -> None:
    """It is a StopIteration, in either order."""
    pool = two()
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_get_next_after_unordered_has_overtaken() -> None:
    """What was submitted before the one taken cannot be asked for in order any more."""
    pool = two()
    pool.submit(sleep, 3)
    pool.submit(sleep, 0)
    assert pool.get_next_unordered() == 0
    with pytest.raises(ValueError, match="not allowed"):
        pool.get_next()
    assert pool.get_next_unordered() == 3


def test_a_timeout_leaves_the_result_for_later() -> None:
    """The next call may still have it."""
    pool = two()
    pool.submit(sleep, 1)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.05)
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.05)
    assert pool.get_next(timeout=20) == 1


def test_ignore_if_timedout_drops_the_result() -> None:
    """The next call is for the one after it."""
    pool = two()
    pool.submit(sleep, 1)
    pool.submit(double, 4)
    with pytest.raises(TimeoutError, match="ignored"):
        pool.get_next(timeout=0.05, ignore_if_timedout=True)
    assert pool.get_next() == 8
    assert not pool.has_next() and pool.has_free()


def test_an_error_is_raised_and_its_actor_goes_on() -> None:
    """The pool has as many actors as before."""
    pool = two()
    pool.submit(lambda actor, value: actor.fail.remote(value), 1)
    with pytest.raises(ValueError, match="no 1"):
        pool.get_next()
    assert list(pool.map(double, [1, 2, 3])) == [2, 4, 6]


def test_a_dead_actor_stays_out() -> None:
    """Its error is raised once, and the others do the rest."""
    dead, alive = Worker.remote(), Worker.remote()
    pid = ray.get(alive.pid.remote())
    ray.kill(dead)
    pool = ActorPool([alive, dead])
    pool.submit(lambda actor, value: actor.pid.remote(value), 1)
    with pytest.raises(ray.exceptions.RayActorError):
        pool.get_next()
    for _ in range(3):
        pool.submit(lambda actor, value: actor.pid.remote(value), 1)
    assert {pool.get_next() for _ in range(3)} == {pid}


def test_has_free_and_pop_idle() -> None:
    """An actor is free again when its result was taken."""
    actor = Worker.remote()
    pool = ActorPool([actor])
    assert pool.has_free()
    pool.submit(double, 1)
    assert not pool.has_free() and pool.pop_idle() is None
    assert pool.get_next() == 2
    assert pool.has_free() and pool.pop_idle() == actor
    assert not pool.has_free() and pool.pop_idle() is None


def test_push_takes_what_waits() -> None:
    """Work that has no actor yet begins with the one that is added."""
    pool = ActorPool([])
    pool.submit(double, 3)
    assert not pool.has_next()
    pool.push(Worker.remote())
    assert pool.get_next() == 6


def test_push_of_an_actor_that_is_there() -> None:
    """It is a ValueError, whether it is idle or busy."""
    pool = two()
    actor = pool.pop_idle()
    pool.push(actor)
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(actor)
    pool.submit(sleep, 0)
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(actor)


def test_functions_may_return_several_references() -> None:
    """The result is the list of their values."""
    pool = two()
    pool.submit(lambda actor, value: [double(actor, value), double(actor, value + 1)], 1)
    assert pool.get_next() == [2, 4]
