"""Contracts of exceptions: the tree, what tasks raise, and what is said of it."""

from __future__ import annotations

import pickle
import sys

import pytest
import ray
from ray import exceptions as e

from tests.conformance.functions import same

pytestmark = pytest.mark.usefixtures("cluster")


class Custom(Exception):
    def __init__(self, code, detail=None):
        super().__init__(f"custom {code}")
        self.code = code
        self.detail = detail


class TwoArguments(Exception):
    """Its pickle is broken: it is rebuilt with one argument."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.one, self.two = one, two


class ReadOnlyArgs(Exception):
    @property
    def args(self):
        return ("fixed",)


class Final(Exception):
    def __init_subclass__(cls, **kwargs):
        raise TypeError("no subclasses")


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = __import__("threading").Lock()


@ray.remote
def fail(error, *_):
    raise error


def failure(ref, kind=e.RayTaskError):
    with pytest.raises(kind) as caught:
        ray.get(ref, timeout=50)
    return caught.value


# ---- the tree ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("RayError", [Exception]),
        ("RayTaskError", [e.RayError]),
        ("TaskCancelledError", [e.RayError]),
        ("WorkerCrashedError", [e.RayError]),
        ("RayActorError", [e.RayError]),
        ("ActorDiedError", [e.RayActorError]),
        ("ActorUnavailableError", [e.RayActorError]),
        ("RaySystemError", [e.RayError]),
        ("ObjectLostError", [e.RayError]),
        ("ObjectFetchTimedOutError", [e.ObjectLostError]),
        ("ReferenceCountingAssertionError", [e.ObjectLostError, AssertionError]),
        ("ObjectFreedError", [e.ObjectLostError]),
        ("OwnerDiedError", [e.ObjectLostError]),
        ("ObjectReconstructionFailedError", [e.ObjectLostError]),
        ("GetTimeoutError", [e.RayError, TimeoutError]),
        ("ObjectStoreFullError", [e.RayError]),
        ("OutOfDiskError", [e.RayError]),
        ("OutOfMemoryError", [e.RayError]),
        ("NodeDiedError", [e.RayError]),
        ("LocalRayletDiedError", [e.RayError]),
        ("PlasmaObjectNotAvailable", [e.RayError]),
        ("AsyncioActorExit", [e.RayError]),
        ("RuntimeEnvSetupError", [e.RayError]),
        ("AuthenticationError", [e.RayError]),
        ("RpcError", [e.RayError]),
        ("CrossLanguageError", [e.RayError]),
        ("UserCodeException", [e.RayError]),
        ("UnserializableException", [e.RayError]),
        ("TaskPlacementGroupRemoved", [e.RayError]),
        ("ActorPlacementGroupRemoved", [e.RayError]),
        ("PendingCallsLimitExceeded", [e.RayError]),
        ("TaskUnschedulableError", [e.RayError]),
        ("ActorUnschedulableError", [e.RayError]),
        ("ObjectRefStreamEndOfStreamError", [e.RayError]),
        ("OufOfBandObjectRefSerializationException", [e.RayError]),
        ("RayChannelError", [e.RaySystemError]),
        ("RayChannelTimeoutError", [e.RaySystemError, TimeoutError]),
        ("RayCgraphCapacityExceeded", [e.RaySystemError]),
        ("ActorAlreadyExistsError", [e.RayError, ValueError]),
        ("ActorHandleNotFoundError", [e.RayError, ValueError]),
    ],
)
def test_an_exception_is_of_its_bases(name, bases) -> None:
    """The class is there, below these."""
    kind = getattr(e, name)

    assert all(issubclass(kind, base) for base in bases)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("WorkerCrashedError", "RayTaskError"),
        ("RayActorError", "RayTaskError"),
        ("GetTimeoutError", "RayTaskError"),
        ("TaskCancelledError", "RayTaskError"),
        ("NodeDiedError", "RaySystemError"),
        ("RayTaskError", "RaySystemError"),
    ],
)
def test_an_exception_is_not_below_another(name, other) -> None:
    """An ``except`` for the one does not catch the other."""
    assert not issubclass(getattr(e, name), getattr(e, other))


# ---- what tasks raise ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a"),
        KeyError("k"),
        OSError(2, "no"),
        ZeroDivisionError(),
        Exception("x"),
    ],
    ids=repr,
)
def test_an_error_is_of_both_types(error) -> None:
    """What ``get`` raises is a RayTaskError, and of the user's own type."""
    found = failure(fail.remote(error))

    assert isinstance(found, e.RayTaskError)
    assert isinstance(found, type(error))
    assert isinstance(found.cause, type(error))
    assert type(found.cause) is type(error)
    assert found.cause.args == error.args


def test_the_attributes_of_the_users_exception_are_there() -> None:
    """They can be read from what is raised, and from its cause."""
    found = failure(fail.remote(Custom(7, detail="d")))

    assert (found.code, found.detail) == (7, "d")
    assert (found.cause.code, found.cause.detail) == (7, "d")


def test_errors_of_methods_are_as_those_of_tasks() -> None:
    """An actor's method raises a RayTaskError of the user's type, and the actor lives on."""

    @ray.remote
    class Actor:
        def go(self, fails):
            if fails:
                raise Custom(1)
            return "on"

    actor = Actor.remote()
    found = failure(actor.go.remote(True))
    assert isinstance(found, Custom)
    assert not isinstance(found, e.RayActorError)
    assert ray.get(actor.go.remote(False)) == "on"


def test_an_exception_group_is_kept() -> None:
    """What is raised is an ExceptionGroup with its members."""
    found = failure(fail.remote(ExceptionGroup("some", [ValueError("a"), KeyError("b")])))

    assert isinstance(found, ExceptionGroup)
    assert [type(one) for one in found.exceptions] == [ValueError, KeyError]


def test_except_star_splits_it() -> None:
    """``except*`` sees the members of a group."""
    seen = []
    try:
        ray.get(fail.remote(ExceptionGroup("some", [ValueError("a"), KeyError("b")])))
    except* ValueError:
        seen.append("value")
    except* KeyError:
        seen.append("key")

    assert seen == ["value", "key"]


DIFFICULT = {
    "ReadOnlyArgs": ReadOnlyArgs,
    "Final": lambda: Final("f"),
    "TwoArguments": lambda: TwoArguments(1, 2),
    "Unpicklable": lambda: Unpicklable("u"),
}


@pytest.mark.parametrize("name", DIFFICULT)
def test_a_difficult_exception_is_an_error_all_the_same(name) -> None:
    """Whatever its class does, ``get`` raises a RayError that names it."""

    @ray.remote
    def f(name):
        raise DIFFICULT[name]()

    assert name in str(failure(f.remote(name), e.RayError))


def test_a_system_exit_is_the_tasks_failure() -> None:
    """``sys.exit`` in a task does not end the driver: ``get`` raises."""

    @ray.remote(max_retries=0)
    def f():
        sys.exit(3)

    failure(f.remote(), e.RayError)


def test_a_stop_iteration_is_no_end_of_an_iteration() -> None:
    """A task that raises StopIteration has failed."""
    found = failure(fail.remote(StopIteration("x")))

    assert isinstance(found, e.RayTaskError)


# ---- texts ---------------------------------------------------------------------------------


def test_the_text_has_the_traceback_of_the_task() -> None:
    """``str`` of the error shows where in the user's code it was raised, and what."""

    @ray.remote
    def named_function():
        inner_function()

    def inner_function():
        raise ValueError("the message")

    text = str(failure(named_function.remote()))
    assert "inner_function" in text
    assert "test_exceptions.py" in text
    assert "ValueError: the message" in text
    assert "named_function" in text


def test_the_text_names_the_process() -> None:
    """``str`` of the error has ``pid=``."""
    assert "pid=" in str(failure(fail.remote(ValueError("x"))))


def test_a_chain_of_causes_is_in_the_text() -> None:
    """``raise ... from`` shows both."""

    @ray.remote
    def f():
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    text = str(failure(f.remote()))
    assert "first" in text
    assert "second" in text
    assert "direct cause" in text


def test_a_failed_argument_is_the_failure_of_the_task() -> None:
    """A task whose argument failed does not run, and raises the argument's error."""
    found = failure(same.remote(fail.remote(Custom(5))))

    assert isinstance(found, Custom)
    assert found.code == 5


def test_a_failure_goes_through_several_tasks() -> None:
    """The type stays through nested calls of ``get``."""

    @ray.remote
    def outer():
        return ray.get(fail.remote(Custom(9)))

    found = failure(outer.remote())
    assert isinstance(found, Custom)
    assert "outer" in str(found)


def test_a_failed_argument_of_a_method() -> None:
    """An actor's call with a failed argument raises it, and the actor goes on."""

    @ray.remote
    class Actor:
        def go(self, x):
            return x

    actor = Actor.remote()
    assert isinstance(failure(actor.go.remote(fail.remote(Custom(5)))), Custom)
    assert ray.get(actor.go.remote(1)) == 1


# ---- the object ----------------------------------------------------------------------------


def test_an_error_can_be_pickled() -> None:
    """What ``get`` raises survives ``ray.cloudpickle``, with its type, cause and text."""
    found = failure(fail.remote(Custom(2)))

    again = ray.cloudpickle.loads(ray.cloudpickle.dumps(found))
    assert isinstance(again, Custom)
    assert isinstance(again, e.RayTaskError)
    assert again.cause.code == 2


def test_an_error_can_be_returned_and_passed() -> None:
    """An exception is a value as any other."""
    found = ray.get(same.remote(Custom(4)))

    assert type(found) is Custom
    assert ray.get(same.remote([failure(fail.remote(Custom(6)))]))[0].cause.code == 6


def test_an_error_can_be_raised_again_in_a_task() -> None:
    """A task that lets an error of another pass fails with the same type."""

    @ray.remote
    def f(refs):
        try:
            ray.get(refs[0])
        except Custom as error:
            raise error

    assert isinstance(failure(f.remote([fail.remote(Custom(1))])), Custom)


def test_as_instanceof_cause() -> None:
    """``as_instanceof_cause`` gives an error of the user's type."""
    found = failure(fail.remote(Custom(1)))

    assert isinstance(found.as_instanceof_cause(), Custom)


def test_a_timeout_is_pickled() -> None:
    """GetTimeoutError survives pickle."""
    assert isinstance(pickle.loads(pickle.dumps(e.GetTimeoutError("x"))), e.GetTimeoutError)


@pytest.mark.parametrize(
    "name",
    [
        "RayError",
        "WorkerCrashedError",
        "GetTimeoutError",
        "PendingCallsLimitExceeded",
    ],
)
def test_a_program_can_raise_it(name) -> None:
    """The class can be made with a text, and is caught as itself."""
    with pytest.raises(e.RayError):
        raise getattr(e, name)("text")


def test_the_exceptions_of_ray_go_through_tasks() -> None:
    """A task that raises one of Ray's own exceptions is caught by its type."""
    with pytest.raises(e.GetTimeoutError):
        ray.get(fail.remote(e.GetTimeoutError("late")))


# ---- failures that are nobody's exception -------------------------------------------------------


def test_an_actor_whose_constructor_raises() -> None:
    """Calls raise ActorDiedError, with the constructor's error in the text."""

    @ray.remote
    class Actor:
        def __init__(self):
            raise ValueError("in the constructor")

        def go(self):
            pass

    found = failure(Actor.remote().go.remote(), e.ActorDiedError)
    assert "in the constructor" in str(found)
    assert found.actor_id


def test_a_killed_actor() -> None:
    """Calls of an actor that was killed raise RayActorError, with its id."""

    @ray.remote
    class Actor:
        def go(self):
            return ray.get_runtime_context().get_actor_id()

    actor = Actor.remote()
    actor_id = ray.get(actor.go.remote())
    ray.kill(actor)

    found = failure(actor.go.remote(), e.RayActorError)
    assert found.actor_id == actor_id


def test_a_crashed_worker() -> None:
    """A task whose process ends raises WorkerCrashedError, which is a RayError."""

    @ray.remote(max_retries=0)
    def f():
        import os

        os._exit(1)

    failure(f.remote(), e.WorkerCrashedError)


def test_too_many_pending_calls() -> None:
    """A call above ``max_pending_calls`` is PendingCallsLimitExceeded at once."""

    @ray.remote(max_pending_calls=1)
    class Actor:
        def go(self):
            import time

            time.sleep(1)

    actor = Actor.remote()
    with pytest.raises(e.PendingCallsLimitExceeded):
        for _ in range(20):
            actor.go.remote()


def test_a_name_that_is_taken() -> None:
    """Another actor of the name is a ValueError."""

    @ray.remote
    class Actor:
        pass

    first = Actor.options(name="taken").remote()
    with pytest.raises(ValueError):
        Actor.options(name="taken").remote()
    del first


def test_a_name_that_nobody_has() -> None:
    """``get_actor`` is a ValueError."""
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor("nobody")
