"""Contracts of what users' exceptions are after their way through a task."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import pickle
import subprocess
import threading

import pytest
import ray
from ray.exceptions import RayError, RayTaskError

from tests.conformance.functions import same

pytestmark = pytest.mark.usefixtures("cluster")


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class NoArguments(Exception):
    def __init__(self):
        super().__init__("of none")


class Slots(Exception):
    __slots__ = ("place",)

    def __init__(self, place):
        super().__init__("slots")
        self.place = place


class WithProperty(Exception):
    @property
    def doubled(self):
        return self.args[0] * 2


class WithMethod(Exception):
    def describe(self):
        return f"described {self.args[0]}"


class WithText(Exception):
    def __str__(self):
        return "a text of its own"


class BadText(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class BadRepr(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")


class Reduced(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.one, self.two = one, two

    def __reduce__(self):
        return Reduced, (self.one, self.two)


class AnyAttribute(Exception):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"any {name}"


class NoAttributes(Exception):
    def __setattr__(self, name, value):
        raise AttributeError("frozen")


class Meta(type):
    pass


class WithMeta(Exception, metaclass=Meta):
    pass


class Code(enum.IntEnum):
    BAD = 7


class TwoBases(KeyError, ValueError):
    pass


class Deep(WithMethod):
    pass


@dataclasses.dataclass
class DataError(Exception):
    place: int
    name: str = "n"


class Base(BaseException):
    pass


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()
        self.word = "word"


class UnpicklableArgument(Exception):
    def __init__(self):
        super().__init__(threading.Lock())


class NotRebuilt(Exception):
    def __reduce__(self):
        return explode, ()


def explode():
    raise RuntimeError("cannot be rebuilt")


class NoSubclass(Exception):
    def __init_subclass__(cls, **kwargs):
        raise TypeError("no subclasses")


class NewArguments(Exception):
    def __new__(cls, one, two):
        made = super().__new__(cls, one, two)
        made.both = (one, two)
        return made

    def __init__(self, one, two):
        super().__init__(one, two)


@ray.remote(max_retries=0)
def fail(make, *arguments):
    raise make(*arguments)


@ray.remote
class Raising:
    def go(self, make, *arguments):
        raise make(*arguments)

    async def never(self):
        pass


@ray.remote
class Plain:
    def go(self, make, *arguments):
        raise make(*arguments)

    def ping(self):
        return "on"

    def __repr__(self):
        return "Plain(named)"


def failure(ref, kind=RayError):
    with pytest.raises(kind) as caught:
        ray.get(ref, timeout=50)
    return caught.value


WAYS = {
    "task": lambda *what: fail.remote(*what),
    "method": lambda *what: Plain.remote().go.remote(*what),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (ValueError, ("a", 1)),
        (OSError, (2, "no such", "/file")),
        (FileNotFoundError, (2, "no such", "/file")),
        (KeyError, ("key",)),
        (IndexError, ("i",)),
        (AttributeError, ("a",)),
        (RuntimeError, ()),
        (NotImplementedError, ("n",)),
        (AssertionError, ("a",)),
        (TimeoutError, ("t",)),
        (ConnectionResetError, (104, "reset")),
        (RecursionError, ("r",)),
        (UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "bad byte")),
        (SyntaxError, ("s", ("f.py", 1, 2, "text"))),
        (ImportError, ("no module",)),
        (subprocess.CalledProcessError, (3, ["cmd"])),
        (json.JSONDecodeError, ("bad", "{", 0)),
        (Slots, (4,)),
        (WithProperty, (4,)),
        (WithMethod, (4,)),
        (WithText, ("t",)),
        (Reduced, (1, 2)),
        (AnyAttribute, ("x",)),
        (WithMeta, ("m",)),
        (TwoBases, ("b",)),
        (Deep, (1,)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_it_is_of_its_own_class(way, make, arguments) -> None:
    """Caught as its own class and as RayTaskError, with its cause of exactly that class."""
    found = failure(WAYS[way](make, *arguments))

    assert isinstance(found, RayTaskError)
    assert isinstance(found, make)
    made = make(*arguments)
    assert type(found.cause) is type(made)
    assert found.cause.args == made.args


def test_keyword_only_arguments() -> None:
    """A class that pickle cannot rebuild is an error that names it."""

    @ray.remote
    def f():
        raise KeywordOnly(code=5)

    assert "KeywordOnly" in str(failure(f.remote()))


@pytest.mark.parametrize(
    "make", [BadRepr, NoSubclass, DataError, NoAttributes, lambda _: UnpicklableArgument()]
)
def test_whatever_a_class_does_it_is_an_error(make) -> None:
    """``get`` raises a RayError, and the next task runs."""
    failure(fail.remote(make, 1))
    assert ray.get(same.remote(1)) == 1


def test_what_is_not_an_exception_fails_the_task() -> None:
    """A BaseException that a task raises does not go through the driver as itself only."""
    found = failure(fail.remote(Base, "base"))

    assert "base" in str(found)
    assert ray.get(same.remote(1)) == 1


@pytest.mark.parametrize("kind", [GeneratorExit, asyncio.CancelledError])
def test_pythons_own_that_are_no_exceptions(kind) -> None:
    """They are errors of the task."""
    failure(fail.remote(kind, "x"))
    assert ray.get(same.remote(1)) == 1


@pytest.mark.parametrize("way", WAYS)
def test_an_exception_that_cannot_be_pickled_names_itself(way) -> None:
    """The error's text has the class and the message."""
    text = str(failure(WAYS[way](Unpicklable, "the message")))

    assert "Unpicklable" in text
    assert "the message" in text


def test_an_exception_that_cannot_be_rebuilt_names_itself() -> None:
    """The error's text has the class and the message."""
    text = str(failure(fail.remote(NotRebuilt, "the message")))

    assert "NotRebuilt" in text
    assert "the message" in text


def test_a_class_that_allows_no_subclasses() -> None:
    """It is a RayTaskError whose cause is the exception."""
    found = failure(fail.remote(NoSubclass, "final"), RayTaskError)

    assert type(found.cause) is NoSubclass
    assert found.cause.args == ("final",)


def test_a_local_class() -> None:
    """A class that is defined in a function is the driver's own when it comes back."""

    class Local(Exception):
        pass

    found = failure(fail.remote(Local, "l"))
    assert isinstance(found, Local)


def test_attributes_set_later() -> None:
    """Attributes that were set after the constructor come along."""

    @ray.remote
    def f():
        error = ValueError("x")
        error.status = 404
        error.details = {"a": [1]}
        raise error

    found = failure(f.remote(), ValueError)
    assert (found.status, found.details) == (404, {"a": [1]})


def test_attributes_of_pythons_own() -> None:
    """``errno`` and ``filename`` of an OSError, on its cause."""
    cause = failure(fail.remote(OSError, 2, "no such", "/file")).cause

    assert (cause.errno, cause.strerror, cause.filename) == (2, "no such", "/file")


def test_an_enum_in_an_exception() -> None:
    """Arguments keep their types."""
    cause = failure(fail.remote(ValueError, Code.BAD, (1, 2))).cause

    assert cause.args == (Code.BAD, (1, 2))
    assert type(cause.args[0]) is Code


def test_an_exception_in_an_exception() -> None:
    """An exception may be an argument of another."""
    cause = failure(fail.remote(ValueError, KeyError("inner"))).cause

    assert isinstance(cause.args[0], KeyError)


def test_a_large_message() -> None:
    """An exception with a text of a megabyte arrives."""
    failure(fail.remote(ValueError, "x" * 1_000_000), ValueError)


def test_a_deep_traceback() -> None:
    """A recursion without end in a task is a RecursionError here."""

    @ray.remote
    def f():
        def deeper(n):
            return deeper(n + 1) + 1

        return deeper(0)

    failure(f.remote(), RecursionError)


def test_an_exception_is_raised_by_each_get() -> None:
    """And each is of the user's class."""
    ref = fail.remote(KeyError, "k")

    assert all(isinstance(failure(ref), KeyError) for _ in range(3))


def test_an_error_is_pickled_by_cloudpickle() -> None:
    """With its text, class and cause."""
    found = failure(fail.remote(WithMethod, 4))
    again = ray.cloudpickle.loads(ray.cloudpickle.dumps(found))

    assert isinstance(again, WithMethod)
    assert isinstance(again, RayTaskError)
    assert isinstance(again.cause, WithMethod)
    assert str(again) == str(found)


def test_an_error_in_a_put() -> None:
    """An exception that is put is a value."""
    value = ray.get(ray.put(ValueError("value")))

    assert type(value) is ValueError
    assert value.args == ("value",)


def test_a_task_may_return_an_exception() -> None:
    """It is not raised."""

    @ray.remote
    def f():
        return ValueError("returned")

    assert type(ray.get(f.remote())) is ValueError


# ---- groups, causes ------------------------------------------------------------------------


def test_a_group_of_groups() -> None:
    """Nested groups are kept."""
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError(1)]), KeyError("k")])

    @ray.remote
    def f():
        raise group

    found = failure(f.remote())
    assert isinstance(found, ExceptionGroup)
    assert found.message == "outer"
    assert isinstance(found.exceptions[0].exceptions[0], ValueError)


def test_except_star_with_nested_groups() -> None:
    """``except*`` finds a member however deep."""

    @ray.remote
    def f():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError(1)]), KeyError("k")])

    seen = []
    try:
        ray.get(f.remote())
    except* ValueError as found:
        seen.append(len(found.exceptions))
    except* KeyError as found:
        seen.append(len(found.exceptions))
    assert seen == [1, 1]


def test_a_group_of_a_task_group() -> None:
    """What a TaskGroup raises in an async method."""

    @ray.remote
    class Actor:
        async def go(self):
            async def bad():
                raise ValueError("in the group")

            async with asyncio.TaskGroup() as group:
                group.create_task(bad())

    found = failure(Actor.remote().go.remote())
    assert isinstance(found, ExceptionGroup)
    assert isinstance(found.exceptions[0], ValueError)


def test_the_text_has_the_members_of_a_group() -> None:
    """Of each member the message."""

    @ray.remote
    def f():
        raise ExceptionGroup("outer", [ValueError("first of it"), KeyError("second of it")])

    text = str(failure(f.remote()))
    assert "first of it" in text
    assert "second of it" in text


def test_the_text_has_the_cause() -> None:
    """``raise ... from`` of an error, and what was raised while handling another."""

    @ray.remote
    def f(explicit):
        try:
            raise KeyError("the root")
        except KeyError as error:
            if explicit:
                raise ValueError("the top") from error
            raise ValueError("the top")  # noqa: B904

    for explicit in (True, False):
        text = str(failure(f.remote(explicit)))
        assert "the root" in text
        assert "the top" in text
        assert text.index("the root") < text.rindex("the top")


def test_the_text_has_the_notes() -> None:
    """``add_note``."""

    @ray.remote
    def f():
        error = ValueError("v")
        error.add_note("a note on it")
        raise error

    assert "a note on it" in str(failure(f.remote()))


# ---- texts ---------------------------------------------------------------------------------


def test_the_text_begins_with_who_failed() -> None:
    """The function, the process and the machine."""

    @ray.remote
    def known_name():
        raise ValueError("v")

    first = str(failure(known_name.remote())).splitlines()[0]
    assert "known_name" in first
    assert "pid=" in first


def test_the_text_ends_with_the_error() -> None:
    """As Python's traceback does."""
    last = str(failure(fail.remote(ValueError, "the very end"))).splitlines()[-1]

    assert last == "ValueError: the very end"


def test_the_text_of_a_method_has_the_actors_repr() -> None:
    """Class and method, the actor's ``repr`` and its id."""
    actor = Plain.remote()
    text = str(failure(actor.go.remote(ValueError, "v")))

    first = text.splitlines()[0]
    assert "Plain.go" in first
    assert "Plain(named)" in first
    assert "actor_id=" in first
    assert ray.get(actor.ping.remote()) == "on"


def test_the_text_names_each_task_on_the_way() -> None:
    """An error that goes through nested tasks shows all of them."""

    @ray.remote
    def inner():
        raise ValueError("deep inside")

    @ray.remote
    def middle():
        return ray.get(inner.remote())

    @ray.remote
    def outer():
        return ray.get(middle.remote())

    text = str(failure(outer.remote(), ValueError))
    for name in ("inner", "middle", "outer", "deep inside"):
        assert name in text


@pytest.mark.parametrize("depth", [1, 3])
def test_a_failed_argument_names_both_tasks(depth) -> None:
    """The task that failed, and the one that could not run; and says why."""

    @ray.remote
    def the_first():
        raise ValueError("it was me")

    @ray.remote
    def the_last(x):
        return x

    ref = the_first.remote()
    for _ in range(depth):
        ref = the_last.remote(ref)
    text = str(failure(ref, ValueError))
    assert "the_first" in text
    assert "the_last" in text
    assert "it was me" in text
    assert "At least one of the input arguments for this task could not be computed" in text


def test_a_failed_argument_of_a_method_names_both() -> None:
    """The same for an actor's call."""

    @ray.remote
    def the_first():
        raise ValueError("it was me")

    text = str(failure(Plain.remote().go.remote(the_first.remote()), ValueError))
    assert "the_first" in text
    assert "Plain.go" in text
    assert "At least one of the input arguments for this task could not be computed" in text


def test_a_failed_argument_of_a_constructor() -> None:
    """The actor is dead, and says of what."""

    @ray.remote
    def the_first():
        raise ValueError("it was me")

    @ray.remote
    class Actor:
        def __init__(self, x):
            pass

        def go(self):
            pass

    found = failure(Actor.remote(the_first.remote()).go.remote())
    assert isinstance(found, ray.exceptions.ActorDiedError)
    assert "it was me" in str(found)


def test_a_failed_argument_has_its_cause() -> None:
    """What is raised has the class and attributes of the argument's error."""

    @ray.remote
    def the_last(x):
        return x

    found = failure(the_last.remote(fail.remote(WithMethod, 4)))
    assert isinstance(found, RayTaskError)
    assert found.describe() == "described 4"
    assert isinstance(found.cause, WithMethod)


def test_two_failed_arguments() -> None:
    """One of them is raised."""

    @ray.remote
    def the_last(*x):
        return x

    found = failure(the_last.remote(fail.remote(KeyError, "a"), fail.remote(ValueError, "b")))
    assert isinstance(found, KeyError | ValueError)


def test_the_name_is_the_options_name() -> None:
    """A task with a name of its own is called by it in errors."""

    @ray.remote
    def f():
        raise ValueError("v")

    assert "my_own_name" in str(failure(f.options(name="my_own_name").remote()))


# ---- Ray's own class -----------------------------------------------------------------------


def test_a_task_error_of_ones_own() -> None:
    """``RayTaskError(name, traceback, cause)`` can be made; it is of its cause's class by
    ``as_instanceof_cause``."""
    cause = ValueError("cause")
    made = RayTaskError("name", "Traceback text", cause)

    found = made.as_instanceof_cause()
    assert isinstance(found, ValueError)
    assert isinstance(found, RayTaskError)
    assert found.cause is cause
    assert not isinstance(made, ValueError)


def test_a_task_error_of_ones_own_is_pickled() -> None:
    """With ``ray.cloudpickle``."""
    made = RayTaskError("name", "Traceback text", ValueError("cause"))
    again = ray.cloudpickle.loads(ray.cloudpickle.dumps(made))

    assert isinstance(again.cause, ValueError)
    assert again.function_name == "name"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda e: e.TaskCancelledError(), ""),
        (lambda e: e.TaskCancelledError(error_message="why"), "why"),
        (lambda e: e.RayActorError(), ""),
        (lambda e: e.RayActorError(actor_id="ab", error_msg="why"), "why"),
        (lambda e: e.ActorDiedError(), ""),
        (lambda e: e.ActorUnavailableError("why", None), "why"),
        (lambda e: e.GetTimeoutError("why"), "why"),
        (lambda e: e.ObjectLostError("ab" * 14, b"", ""), "ab" * 14),
        (lambda e: e.OwnerDiedError("ab" * 14, b"", ""), "ab" * 14),
        (lambda e: e.ObjectFreedError("ab" * 14, b"", ""), "ab" * 14),
        (lambda e: e.ObjectReconstructionFailedError("ab" * 14), "ab" * 14),
        (lambda e: e.ObjectFetchTimedOutError("ab" * 14, b"", ""), "ab" * 14),
        (lambda e: e.ReferenceCountingAssertionError("ab" * 14, b"", ""), "ab" * 14),
        (lambda e: e.NodeDiedError("why"), "why"),
        (lambda e: e.OutOfMemoryError("why"), "why"),
        (lambda e: e.OutOfDiskError("why"), "why"),
        (lambda e: e.ObjectStoreFullError("why"), "why"),
        (lambda e: e.RaySystemError("why"), "why"),
        (lambda e: e.RuntimeEnvSetupError("why"), "why"),
        (lambda e: e.TaskUnschedulableError("why"), "why"),
        (lambda e: e.ActorUnschedulableError("why"), "why"),
        (lambda e: e.RpcError("why"), "why"),
        (lambda e: e.RpcError("why", rpc_code=3), "why"),
        (lambda e: e.PendingCallsLimitExceeded("why"), "why"),
        (lambda e: e.UserCodeException("why"), "why"),
        (lambda e: e.UnserializableException("why"), "why"),
        (lambda e: e.AuthenticationError("why"), "why"),
        (lambda e: e.LocalRayletDiedError(), ""),
        (lambda e: e.WorkerCrashedError(), ""),
        (lambda e: e.TaskPlacementGroupRemoved(), ""),
        (lambda e: e.ActorPlacementGroupRemoved(), ""),
        (lambda e: e.AsyncioActorExit("why"), "why"),
    ],
)
def test_a_program_can_make_it_as_in_ray(make, text) -> None:
    """With the constructor's arguments of Ray; the text is in it, and it can be raised."""
    made = make(ray.exceptions)

    assert text in str(made)
    with pytest.raises(RayError):
        raise made


@pytest.mark.parametrize(
    "make",
    [
        lambda e: e.GetTimeoutError("why"),
        lambda e: e.WorkerCrashedError(),
        lambda e: e.NodeDiedError("why"),
        lambda e: e.TaskCancelledError(),
        lambda e: e.ObjectStoreFullError("why"),
    ],
)
def test_it_goes_through_a_task(make) -> None:
    """One of Ray's own that a task raises is caught as its class."""
    made = make(ray.exceptions)

    @ray.remote(max_retries=0)
    def f():
        raise make(ray.exceptions)

    with pytest.raises(type(made)):
        ray.get(f.remote())


def test_pickle_of_what_was_made() -> None:
    """``pickle`` of a GetTimeoutError keeps its text."""
    again = pickle.loads(pickle.dumps(ray.exceptions.GetTimeoutError("why")))

    assert "why" in str(again)


# ---- retries -------------------------------------------------------------------------------


def test_retry_exceptions_sees_the_users_class(counter) -> None:
    """A list of classes: subclasses, too; others are not retried."""

    @ray.remote(max_retries=2, retry_exceptions=[LookupError])
    def f(kind):
        counter()
        raise kind("x")

    failure(f.remote(KeyError), KeyError)
    assert counter() == 4
    failure(f.remote(ValueError), ValueError)
    assert counter() == 6


# ---- async methods -------------------------------------------------------------------------


def test_an_async_method_that_raises() -> None:
    """As any other, and the actor goes on."""

    @ray.remote
    class Actor:
        async def go(self, fails):
            await asyncio.sleep(0)
            if fails:
                raise WithMethod(3)
            return "on"

    actor = Actor.remote()
    found = failure(actor.go.remote(True))
    assert found.describe() == "described 3"
    assert ray.get(actor.go.remote(False)) == "on"


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, Base, GeneratorExit])
def test_an_async_method_that_raises_something_odd(kind) -> None:
    """It is answered, and the actor goes on."""

    @ray.remote
    class Actor:
        async def go(self, fails):
            if fails:
                raise kind("odd")
            return "on"

    actor = Actor.remote()
    failure(actor.go.remote(True))
    assert ray.get(actor.go.remote(False), timeout=30) == "on"


def test_an_async_method_that_returns_what_cannot_be_pickled() -> None:
    """It is answered, and the actor goes on."""

    @ray.remote
    class Actor:
        async def go(self, fails):
            return threading.Lock() if fails else "on"

    actor = Actor.remote()
    with pytest.raises(Exception, match="lock"):
        ray.get(actor.go.remote(True), timeout=30)
    assert ray.get(actor.go.remote(False), timeout=30) == "on"


def test_a_method_that_is_not_there() -> None:
    """An AttributeError at the handle."""
    with pytest.raises(AttributeError):
        Plain.remote().nothing.remote()
