"""What user code of the simulation is made of: the steps that a program yields, and its values.

Programs are coroutines that compute, submit, get, put and drop; the process that runs one carries
out each step. Owns no process and no function.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.protocol import messages as m


class TaskFailed(Exception):
    """What ``get`` raises for an error outcome."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Interrupted(BaseException):
    """A cancel, raised in the code of the task that it names."""


class Owner(Protocol):
    """The process that a reference is in."""

    client: Client
    references: list[Ref]


class Ref:
    """A reference, dropped by ``drop`` or at the end of the program that made it."""

    __slots__ = ("live", "oid", "owner")

    def __init__(self, owner: Owner, oid: bytes) -> None:
        self.owner = owner
        self.oid = oid
        self.live = True
        owner.references.append(self)

    def drop(self) -> None:
        """What ``del ref`` does."""
        if self.live:
            self.live = False
            self.owner.client.references.remove(self.oid)


class Value(NamedTuple):
    """What a task returns: a number, who made it, and references."""

    number: int
    maker: bytes
    refs: list[Ref]


class Nested(NamedTuple):
    """References that stay references in the task that gets them."""

    refs: list[Ref]


class Sleep(NamedTuple):
    """Compute, or let time pass."""

    seconds: float


class Get(NamedTuple):
    """Wait for values; the first error among them is raised."""

    refs: list[Ref]


class Wait(NamedTuple):
    """Wait until at most so many seconds have passed for outcomes; resumes with the number.

    ``whole``: for the values.
    """

    refs: list[Ref]
    seconds: float
    whole: bool = False


class Ask(NamedTuple):
    """A request to the head, made with its number; resumes with the answer."""

    make: Callable[[int], m.Message]


class Until(NamedTuple):
    """Wait for an answer that was asked for; resumes with it."""

    waiter: Waiter
    answer: list[m.Message]


class Die(NamedTuple):
    """The worker process ends here: SIGKILL, a segfault."""


class Fail(NamedTuple):
    """The task raises; ``covered``: retry_exceptions covers it."""

    covered: bool


class Yield(NamedTuple):
    """An item of a task or call that yields; its fields as those of Returned."""

    number: int
    refs: Sequence[Ref] = ()
    size: int = 0


class Leave(NamedTuple):
    """The actor ends here because it wants to."""


Step: TypeAlias = Sleep | Get | Wait | Ask | Until | Die | Fail | Leave | Yield
Program: TypeAlias = Generator[Step, Any, Any]


class Returned(NamedTuple):
    """What one return value of a task is made of."""

    number: int
    refs: Sequence[Ref] = ()
    size: int = 0


class Library(NamedTuple):
    """The code that processes know by name, as an importable module would be."""

    functions: Mapping[str, Callable[..., Program]]
    constructors: Mapping[str, Callable[..., Program]]
    methods: Mapping[str, Callable[..., Program]]
