"""User code in the simulation: coroutines that compute, submit, get, put and drop.

Owns how simulated values look on the wire and what a program may do; the process that runs it
(worker or driver) supplies the shipped Client machine. Decides nothing about the cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from zray import limits
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.ids import task_of
from zray.protocol import messages as m
from zray.protocol.errors import ErrorRecord, decode_error, encode_error

if TYPE_CHECKING:
    from zray.testing.cluster import SimCluster

RAISED = "ZR-3001"


class TaskFailed(Exception):
    """What ``get`` raises for an error outcome."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Interrupted(BaseException):
    """A cancel, raised in the code of the task that it names."""


class Ref:
    """A reference, dropped by ``drop`` or at the end of the program that made it."""

    __slots__ = ("live", "oid", "owner")

    def __init__(self, owner: Participant, oid: bytes) -> None:
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
    """Wait until at most so many seconds have passed for outcomes; resumes with the number."""

    refs: list[Ref]
    seconds: float


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


class Leave(NamedTuple):
    """The actor ends here because it wants to."""


Step: TypeAlias = Sleep | Get | Wait | Ask | Until | Die | Fail | Leave
Program: TypeAlias = Generator[Step, Any, Any]


class Returned(NamedTuple):
    """What one return value of a task is made of."""

    number: int
    refs: Sequence[Ref] = ()
    size: int = 0


class Participant:
    """A process with a Client machine: what workers and drivers have in common."""

    cluster: SimCluster
    name: str

    def __init__(self, client: Client) -> None:
        self.client = client
        self.references: list[Ref] = []
        self.kept: list[Ref] = []  # what the process keeps beyond its programs

    # ---- what programs do ------------------------------------------------------------------

    def submit(
        self,
        function: str,
        arguments: Iterable[Any] = (),
        *,
        cpus: float = 1.0,
        resources: dict[str, int] | None = None,
        num_returns: int = 1,
        max_retries: int = 3,
        parent: bytes = b"",
    ) -> list[Ref]:
        """Submit a task; its references, in order. Arguments: Ref, Nested, or plain data."""
        amounts = {"CPU": int(cpus * limits.RESOURCE_UNIT), **(resources or {})}
        template = make_template(function, amounts, num_returns, max_retries)
        self.client.export(m.Export(0, template.function_id, function, function.encode()))
        self.client.template(template)
        data, dependencies, nested = packed(arguments)
        box = None
        if len(data) > limits.ARGUMENT_BYTES_MAX:
            box = self.client.references.put(data, nested)
            data, dependencies = b"", [box, *dependencies]
        spec = m.TaskSpec(
            *(self.client.new_task(), template.template_id, data, dependencies),
            *(nested, parent, box is not None),
        )
        returns = self.client.submit(spec, num_returns)
        if template.function_id[0] & 1:  # such functions are let go with the last task of theirs
            self.client.definitions.name(template.function_id)
            self.client.definitions.unname(template.function_id)
        if box is not None:
            self.client.references.remove(box)
        self.cluster.ledger.submitted(self, spec, template)
        return [Ref(self, oid) for oid in returns]

    def put(self, number: int, refs: Iterable[Ref] = (), size: int = 0) -> Ref:
        """Put a value."""
        data, contained = self.encode(Returned(number, list(refs), size), self.name.encode())
        oid = self.client.references.put(data, contained)
        self.cluster.ledger.made(self, oid, number)
        return Ref(self, oid)

    def cancel(self, ref: Ref, *, force: bool, recursive: bool = True) -> None:
        """Cancel the task behind a reference."""
        self.cluster.ledger.cancelled(task_of(ref.oid))
        self.client.cancel(task_of(ref.oid), force, recursive)

    def expect(self, refs: Iterable[Ref], *numbers: int) -> None:
        """State the values that these references must have."""
        for ref, number in zip(refs, numbers, strict=True):
            self.cluster.ledger.expected[ref.oid] = number

    # ---- values ----------------------------------------------------------------------------

    def encode(self, value: Returned, maker: bytes) -> tuple[bytes, list[bytes]]:
        """The bytes of a value, and the references in it."""
        contained = [ref.oid for ref in value.refs]
        data = msgspec.msgpack.encode([value.number, maker, bytes(value.size), contained])
        return data, contained

    def decode(self, oid: bytes, outcome: m.Outcome) -> Value:
        """The value, with a new reference for each reference in it; raises what it says."""
        self.cluster.ledger.observed(self, oid, outcome)
        if outcome.kind & m.ERROR:
            record = decode_error(outcome.value)
            raise TaskFailed(record.code, record.message)
        number, maker, _, contained = msgspec.msgpack.decode(outcome.value)
        return Value(number, maker, [self.borrow(inner) for inner in contained])

    def borrow(self, oid: bytes) -> Ref:
        """A reference that came inside a value."""
        self.client.references.add(oid)
        return Ref(self, oid)

    def missing(self, refs: Iterable[Ref]) -> list[bytes]:
        """Of these references, those whose value is not here."""
        return [ref.oid for ref in refs if self.client.here(ref.oid) is None]

    def want(self, refs: Iterable[Ref]) -> Waiter:
        """A waiter for the values of these references."""
        waiter = Waiter()
        for ref in refs:
            self.client.want_value(ref.oid, waiter)
        return waiter

    def values(self, refs: Iterable[Ref]) -> list[Value]:
        """The values, all of which are here; raises the first error."""
        found = []
        for ref in refs:
            outcome = self.client.here(ref.oid)
            if outcome is None:
                raise TaskFailed("stopped", self.client.stopped)
            found.append(self.decode(ref.oid, outcome))
        return found

    def sweep(self, keep: Iterable[Ref] = ()) -> None:
        """The locals of a program are gone: so are its references, but for those kept."""
        kept = {id(ref) for ref in (*keep, *self.kept)}
        for ref in self.references:
            if id(ref) not in kept:
                ref.drop()
        self.references = [ref for ref in self.references if ref.live]


def packed(arguments: Iterable[Any]) -> tuple[bytes, list[bytes], list[bytes]]:
    """Arguments as they travel, their dependencies, and the references that stay references."""
    plain: list[Any] = []
    dependencies: list[bytes] = []
    nested: list[bytes] = []
    for argument in arguments:
        if isinstance(argument, Ref):
            plain.append(["v"])
            dependencies.append(argument.oid)
        elif isinstance(argument, Nested):
            plain.append(["n", len(argument.refs)])
            nested += [ref.oid for ref in argument.refs]
        else:
            plain.append(["d", argument])
    return msgspec.msgpack.encode(plain), dependencies, nested


def make_template(
    function: str, amounts: dict[str, int], num_returns: int, max_retries: int
) -> m.Template:
    """A function with options, under the id that its content gives it."""
    needs = sorted(amounts.items())
    text = repr((function, needs, num_returns, max_retries)).encode()
    return m.Template(
        *(0, hashlib.sha256(text).digest()[:16], hashlib.sha256(function.encode()).digest()[:16]),
        function,
        needs,
        num_returns,
        max_retries,
    )


def arguments_of(
    participant: Participant, spec: m.TaskSpec | m.Call, values: list[m.Outcome]
) -> tuple[list[Any], list[Ref]]:
    """What a function or method is called with, and the references among it."""
    data = spec.arguments
    if spec.boxed:
        data, values = values[0].value, values[1:]
    dependencies = iter(zip(spec.dependencies[int(spec.boxed) :], values, strict=True))
    nested = iter(spec.nested)
    arguments: list[Any] = []
    refs: list[Ref] = []
    for kind, *rest in msgspec.msgpack.decode(data):
        if kind == "v":
            value = participant.decode(*next(dependencies))
            refs += value.refs
            arguments.append(value)
        elif kind == "n":
            inner = [participant.borrow(next(nested)) for _ in range(rest[0])]
            refs += inner
            arguments.append(inner)
        else:
            arguments.append(rest[0])
    return arguments, refs


def error_bytes(code: str, text: str) -> bytes:
    """An encoded error."""
    return encode_error(ErrorRecord(code=code, message=text))
