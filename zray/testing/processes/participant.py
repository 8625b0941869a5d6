"""A process with a Client machine: what workers and drivers of the simulation have in common.

Owns how simulated values and arguments look on the wire, and says what it does to a witness.
Decides nothing about the cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from zray import limits
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.core.resources import BUILT, ENVIRONMENT
from zray.ids import index_of, task_of
from zray.protocol import messages as m
from zray.protocol.errors import ErrorRecord, decode_error, encode_error
from zray.testing.processes.steps import Nested, Ref, Returned, TaskFailed, Value
from zray.testing.world.world import World


class CallWitness(Protocol):
    """Who is told of actors and their calls, as they happen."""

    def info(self, actor_id: bytes) -> m.ActorInfo:
        """What everybody with a handle knows of an actor."""

    def created(self, who: Participant, spec: m.TaskSpec, info: m.ActorInfo) -> None:
        """A program asks for an actor."""

    def asked(self, actor_id: bytes, answer: list[m.Message]) -> None:
        """Where the answer to that will be."""

    def called(
        self, who: Participant, actor_id: bytes, task_id: bytes, method: str, retries: int
    ) -> None:
        """A program calls a method."""

    def killed(self, actor_id: bytes, *, no_restart: bool) -> None:
        """A program kills an actor."""

    def cancelled(self, task_id: bytes) -> None:
        """A program cancels a call."""

    def failed(self, call: m.Call) -> None:
        """A method has raised what its call is made again for."""

    def constructing(self, worker: Participant, assignment: m.Assignment) -> None:
        """A constructor starts."""

    def incarnations(self, actor_id: bytes) -> int:
        """How often its constructor was started."""

    def started(self, worker: Participant, incarnation: int, call: m.Call) -> None:
        """A call's method starts."""

    def ended(self, worker: Participant, *, owed: bool, orderly: bool) -> None:
        """An actor's process ends; ``owed``: it had something to say to its raylet."""


class Witness(Protocol):
    """Who is told what processes do, as they do it."""

    expected: dict[bytes, int]  # object -> its number

    @property
    def calls(self) -> CallWitness:
        """The same for actors and their calls."""

    def word(self, task_id: bytes) -> str:
        """A short name of a task."""

    def submitted(self, who: Participant, spec: m.TaskSpec, template: m.Template) -> None:
        """A program submitted a task."""

    def made(self, who: Participant, oid: bytes, number: int) -> None:
        """A program put a value."""

    def cancelled(self, task_id: bytes) -> None:
        """A program cancels a task, and with it what that submitted."""

    def runs(self, task_id: bytes) -> int:
        """How often a task was started."""

    def started(self, worker: Participant, assignment: m.Assignment) -> None:
        """User code of a task begins."""

    def ended(self, worker: Participant, status: int) -> None:
        """User code of a task has ended."""

    def died(self, worker: Participant) -> None:
        """A worker process ended, perhaps in the middle of a task."""

    def driver_ended(self, driver: Participant) -> None:
        """A driver's process ended."""

    def program_ended(self, driver: Participant, program: str, error: TaskFailed | None) -> None:
        """A driver's program ended; ``error``: what ended it early."""

    def observed(self, who: Participant, oid: bytes, outcome: m.Outcome) -> None:
        """A process looked at an object's value."""


class Participant:
    """A process with a Client machine: what workers and drivers have in common."""

    name: str

    def __init__(self, client: Client, world: World, witness: Witness) -> None:
        self.client = client
        self.world = world
        self.clock = world.clock
        self.witness = witness
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
        unread_max: int | None = None,
        **options: Any,
    ) -> list[Ref]:
        """Submit a task; its references, in order. Arguments: Ref, Nested, or plain data.

        ``unread_max``: it yields; that is as in TEMPLATE. ``options``: as of ``make_template``.
        """
        amounts = {"CPU": int(cpus * limits.RESOURCE_UNIT), **(resources or {})}
        template = make_template(function, amounts, num_returns, max_retries, unread_max, **options)
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
            consumer=self.client.process_id if unread_max is not None else b"",
        )
        returns = self.client.submit(spec, num_returns)
        if unread_max is not None:
            self.client.streams.open(spec.task_id, limited=bool(unread_max))
        if template.function_id[0] & 1:  # such functions are let go with the last task of theirs
            self.client.definitions.name(template.function_id)
            self.client.definitions.unname(template.function_id)
        if box is not None:
            self.client.references.remove(box)
        self.witness.submitted(self, spec, template)
        return [Ref(self, oid) for oid in returns]

    def put(self, number: int, refs: Iterable[Ref] = (), size: int = 0) -> Ref:
        """Put a value."""
        data, contained = self.encode(Returned(number, list(refs), size), self.name.encode())
        oid = self.client.references.put(data, contained)
        self.witness.made(self, oid, number)
        return Ref(self, oid)

    def cancel(self, ref: Ref, *, force: bool, recursive: bool = True) -> None:
        """Cancel the task behind a reference."""
        self.witness.cancelled(task_of(ref.oid))
        self.client.cancel(task_of(ref.oid), force, recursive, index_of(ref.oid))

    def expect(self, refs: Iterable[Ref], *numbers: int) -> None:
        """State the values that these references must have."""
        for ref, number in zip(refs, numbers, strict=True):
            self.witness.expected[ref.oid] = number

    # ---- values ----------------------------------------------------------------------------

    def encode(self, value: Returned, maker: bytes) -> tuple[bytes, list[bytes]]:
        """The bytes of a value, and the references in it."""
        contained = [ref.oid for ref in value.refs]
        data = msgspec.msgpack.encode([value.number, maker, bytes(value.size), contained])
        return data, contained

    def decode(self, oid: bytes, outcome: m.Outcome) -> Value:
        """The value, with a new reference for each reference in it; raises what it says."""
        self.witness.observed(self, oid, outcome)
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
    function: str,
    amounts: dict[str, int],
    num_returns: int,
    max_retries: int,
    unread_max: int | None = None,
    *,
    timeout_s: float = 0.0,
    priority: int = 0,
    labels: Sequence[list[tuple[str, str]]] = (),
    environment: str = "",
    max_calls: int = 0,
) -> m.Template:
    """A function with options, under the id that its content gives it.

    ``environment``: the value of a variable of its workers; empty: they have none of their own.
    One that begins with "built " has to be built first.
    """
    parts = []
    if f"{ENVIRONMENT}{environment}".startswith(BUILT):
        parts.append(m.EnvironmentPart(m.PY_EXECUTABLE, environment))
    if environment:
        amounts = {**amounts, f"{ENVIRONMENT}{environment}": 0}
    needs = sorted(amounts.items())
    others: tuple[Any, ...] = () if unread_max is None else (unread_max,)
    if timeout_s or priority:
        others = (*others, timeout_s, priority)
    if labels or max_calls:
        others = (*others, labels, max_calls)
    text = repr((function, needs, num_returns, max_retries, *others)).encode()
    return m.Template(
        *(0, hashlib.sha256(text).digest()[:16], hashlib.sha256(function.encode()).digest()[:16]),
        function,
        needs,
        num_returns,
        max_retries,
        yields=m.RETURNS if unread_max is None else m.ITEMS,
        unread_max=unread_max or 0,
        timeout_s=timeout_s,
        priority=priority,
        labels=[*labels],
        max_calls=max_calls,
        environment=m.Environment([("VALUE", environment)], parts) if environment else None,
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
