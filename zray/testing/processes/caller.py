"""What drivers and workers of the simulation have in common as callers of actors.

Makes actors and calls through the shipped ClientCalls machine and does what that wants done to
sockets, as the real shell does. Decides nothing about the cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from typing import Any

from zray import limits
from zray.core.client.actor_caller import ActorCaller
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.ids import index_of, object_id, task_of
from zray.protocol import messages as m
from zray.testing.processes.participant import Participant, Witness, make_template, packed
from zray.testing.processes.steps import Ref, Until
from zray.testing.world.direct import Wire
from zray.testing.world.world import World

NAMESPACE = "simulated"


class Caller(Participant):
    """``machine``: as NodeInfo has it; direct sockets exist only within one."""

    machine = ""

    def __init__(self, client: Client, world: World, witness: Witness) -> None:
        super().__init__(client, world, witness)
        self.wires: dict[bytes, Wire] = {}  # by the actor's worker

    def something_came(self) -> None:
        """A direct socket has something to read, or its end."""
        raise NotImplementedError

    # ---- what programs do ------------------------------------------------------------------

    def create(
        self,
        class_name: str,
        arguments: Iterable[Any] = (),
        *,
        cpus: float = 1.0,
        resources: dict[str, int] | None = None,
        holds: bool = False,
        parent: bytes = b"",
        get_if_exists: bool = False,
        **options: Any,
    ) -> tuple[Ref, Until]:
        """Ask for an actor: its handle, and what to wait for where it has a name.

        ``holds``: it keeps what it takes to be placed. ``options``: of ActorInfo.
        """
        amounts = {"CPU": int(cpus * limits.RESOURCE_UNIT), **(resources or {})}
        template = make_template(class_name, amounts, 1, 0)
        self.client.export(m.Export(0, template.function_id, class_name, class_name.encode()))
        self.client.template(template)
        held = sorted(item for item in amounts.items() if item[1]) if holds else []
        info = m.ActorInfo(
            class_name,
            hashlib.sha256(class_name.encode()).digest()[:16],
            [],
            namespace=NAMESPACE,
            held=held,
            **options,
        )
        data, dependencies, nested = packed(arguments)
        box = None
        if len(data) > limits.INLINE_BYTES_MAX:
            box = self.client.references.put(data, nested)
            data, dependencies = b"", [box, *dependencies]
        spec = m.TaskSpec(
            *(self.client.new_task(), template.template_id, data, dependencies),
            *(nested, parent, box is not None),
        )
        waiter = Waiter()
        self.witness.calls.created(self, spec, info)
        answer = self.client.creations.create(spec, info, get_if_exists, waiter)
        self.witness.calls.asked(spec.task_id, answer)
        if box is not None:
            self.client.references.remove(box)
        return Ref(self, object_id(spec.task_id)), Until(waiter, answer)

    def found(self, actor_id: bytes) -> Ref:
        """A handle, which keeps the actor alive, of one that was found by its name."""
        return self.borrow(object_id(actor_id))

    def call(
        self,
        handle: Ref,
        method: str,
        arguments: Iterable[Any] = (),
        *,
        num_returns: int = 1,
        retries: int | None = None,
        parent: bytes = b"",
        unread_max: int | None = None,
        group: str = "",
    ) -> list[Ref]:
        """Call a method; the references of its returns. ``retries``: else what the actor says.

        ``unread_max``: it yields; that is as in TEMPLATE.
        """
        actor_id = task_of(handle.oid)
        info = self.witness.calls.info(actor_id)
        retries = info.max_task_retries if retries is None else retries
        data, dependencies, nested = packed(arguments)
        box = b""
        if len(data) > limits.CALL_BYTES_MAX:
            box, data = self.client.references.put(data, nested), b""
        returns = self.client.calls.call(
            *(actor_id, info, method, num_returns, retries),
            (data, dependencies, nested, parent, box),
            group,
            *((m.RETRY_AS_DECLARED, m.ITEMS, unread_max) if unread_max is not None else ()),
        )
        if returns:
            task_id = task_of(returns[0])
            if unread_max is not None:
                self.client.streams.open(task_id, limited=bool(unread_max))
            self.witness.calls.called(self, actor_id, task_id, method, retries)
        return [Ref(self, oid) for oid in returns]

    def kill(self, handle: Ref, *, no_restart: bool = True) -> Until:
        """What ``zray.kill`` does; wait for what is returned."""
        self.witness.calls.killed(task_of(handle.oid), no_restart=no_restart)
        return self._ask(partial(_kill, task_of(handle.oid), no_restart))

    def find(self, name: str) -> Until:
        """What ``zray.get_actor`` does; ``adopt`` what the answer names."""
        return self._ask(partial(_find, self.client.process_id, name))

    def _ask(self, make: Any) -> Until:
        waiter = Waiter()
        return Until(waiter, self.client.ask(make, waiter))

    def cancel_call(self, ref: Ref) -> None:
        """Cancel the call behind a reference."""
        self.witness.calls.cancelled(task_of(ref.oid))
        self.client.cancel(task_of(ref.oid), False, False, index_of(ref.oid))

    # ---- direct sockets --------------------------------------------------------------------

    def read_wires(self) -> None:
        """Take what actors have answered over direct sockets."""
        for worker_id in [*self.wires]:
            self._read_wire(worker_id)

    def _read_wire(self, worker_id: bytes) -> None:
        wire = self.wires.get(worker_id)
        if wire is None:
            return
        for message in wire.answers():
            self.client.message(message)
        if not wire.worker_open:
            self._close_wire(worker_id)
            for actor in [*self.client.calls.actors.values()]:
                if actor.worker_id == worker_id:
                    self.client.calls.link_lost(actor)

    def tend_calls(self) -> None:
        """Do what the machine wants done to sockets."""
        calls = self.client.calls
        while calls.connects or calls.drains:
            while calls.drains:
                actor = calls.drains.pop()
                self._read_wire(actor.worker_id)
                calls.drained(actor)
            while calls.connects:
                self._connect(calls.connects.pop())
            calls.flush()
        while calls.closes:
            self._close_wire(calls.closes.pop())
        for worker_id, messages in calls.direct.take().items():
            if (wire := self.wires.get(worker_id)) is not None:
                wire.call(messages)

    def _connect(self, actor: ActorCaller) -> None:
        wire = self.wires.get(actor.worker_id)
        if wire is None and actor.machine == self.machine:
            wire = self.world.direct.connect(self, actor.worker_id)
            if wire is not None:
                self.wires[actor.worker_id] = wire
        self.client.calls.connected(actor, direct=wire is not None)
        self.something_came()  # it may have ended calls

    def _close_wire(self, worker_id: bytes) -> None:
        wire = self.wires.pop(worker_id, None)
        if wire is not None:
            wire.close()

    def end_wires(self) -> None:
        """The process has ended."""
        for worker_id in [*self.wires]:
            self._close_wire(worker_id)


def _kill(actor_id: bytes, no_restart: bool, seq: int) -> m.Message:
    return m.KillActor(seq, actor_id, no_restart)


def _find(holder: bytes, name: str, seq: int) -> m.Message:
    return m.FindActor(seq, holder, NAMESPACE, name)
