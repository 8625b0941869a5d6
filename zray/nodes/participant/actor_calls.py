"""How a driver or worker calls actors: the API's calls on the ClientCalls machine, and its sockets.

A part of Participant. Owns the direct connections; decides nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from zray import errors, limits
from zray.core.client.actor_caller import ActorCaller
from zray.core.client.waiters import Waiter
from zray.core.environments import packages_of
from zray.errors import (
    ActorAlreadyExistsError,
    ClusterShutdownError,
    PendingCallsLimitExceededError,
    ProtocolError,
    ZrayError,
)
from zray.ids import object_id, task_of
from zray.nodes.participant.leader_follower import LeaderFollower
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import serialization
from zray.runtime.interrupts import interrupts
from zray.runtime.references import ObjectRef, WeakReference, counted
from zray.runtime.stream import FRAME_BYTES_MAX, TURN_BYTES, read_available

if TYPE_CHECKING:
    from zray.runtime.linux.direct import DirectLink

EAGER_TASKS = 8  # up to so many in flight, each submit is sent at once
FEED_TASKS = 32  # so often while there are more, what has ended is read and followed by others
COALESCE_TASKS = 256  # beyond, so many go together, or what there is after COALESCE_S


class ActorCalls(LeaderFollower):
    machine = ""  # as NodeInfo has it

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._links: dict[bytes, DirectLink] = {}  # by worker

    def running_task(self) -> bytes:
        """The id of the task that runs in this thread; empty outside of one."""
        return b""

    def _attend(self) -> None:
        """Something has to be done although nobody blocks. Called with the lock."""

    def _attend_future(self) -> None:
        """The same, where somebody may wait by other means than the API. Called with the lock."""
        self._attend()

    def handle_collected(self) -> None:
        """The program has dropped a handle. Called by its finalizer, so wherever it is."""

    def _tend_store(self) -> None:
        """Say what is not used any more of shared memory. Called with the lock."""

    def _links_changed(self) -> None:
        """There is another socket to poll. Called with the lock."""

    def written(self, arguments: serialization.Arguments, least: int) -> m.Outcome | None:
        """Write arguments of more than ``least`` bytes to shared memory, if there is any."""
        return None

    def _box(self, arguments: serialization.Arguments, near: m.Outcome | None) -> bytes:
        """The object that holds a call's arguments, counted once. ``near``: they are written."""
        references = self.client.references
        self._passed_by_value(arguments)
        if near is not None:
            return references.put_near(near)
        return references.put(arguments.whole(), arguments.nested)

    def _passed_by_value(self, arguments: serialization.Arguments) -> None:
        """Arguments too large for a task or call itself. With the lock held."""

    # ---- actors ----------------------------------------------------------------------------

    def create_actor(
        self,
        template: m.Template,
        info: m.ActorInfo,
        arguments: serialization.Arguments,
        get_if_exists: bool,
    ) -> tuple[ObjectRef[Any], m.ActorInfo]:
        """Ask for an actor; its handle's reference, and what the cluster knows of it.

        Waits for the cluster's word only where the actor has a name.

        Raises:
            ActorAlreadyExistsError: the name is taken.
        """
        near = self.written(arguments, limits.INLINE_BYTES_MAX)
        with interrupts, self._lock:
            client = self.client
            data, dependencies, box = arguments.data, arguments.dependencies, b""
            if near is not None or arguments.parts or len(data) > limits.INLINE_BYTES_MAX:
                box = self._box(arguments, near)
                data, dependencies = b"", [box, *dependencies]
            spec = m.TaskSpec(
                *(client.new_task(), template.template_id, data, dependencies),
                *([*arguments.nested, *packages_of(template.environment)], b"", bool(box)),
            )
            waiter = Waiter()
            answer = client.creations.create(spec, info, get_if_exists, waiter)
            ref: ObjectRef[Any] = counted(object_id(spec.task_id))
            if box:
                client.references.remove(box)
            self._flush()
            if not info.name:
                return ref, info
            self._await(waiter, None)
        created = answer[0] if answer else None
        if isinstance(created, m.Rejected):
            raise _error(created.code, created.text)
        if not isinstance(created, m.ActorCreated):
            raise ClusterShutdownError(f"the actor was not made: {client.stopped}")
        if created.code:
            raise _error(created.code, created.text)
        if created.actor_id != spec.task_id:
            ref = WeakReference(object_id(created.actor_id))
        return ref, created.info

    def call_actor(
        self,
        ref: ObjectRef[Any],
        info: m.ActorInfo,
        method: str,
        returned: tuple[int, int, int, bool],
        retries: int,
        arguments: serialization.Arguments,
        group: str,
        retry: bytes,
    ) -> list[ObjectRef[Any]]:
        """Queue a call. Never waits; the references of its returns, in order.

        ``returned``: how many these are, ``yields`` and ``unread_max``, as in TEMPLATE, and
        ``quiet``, as in CALL.

        Raises:
            PendingCallsLimitExceededError: as many wait as the actor's options allow.
        """
        actor_id = task_of(ref.id)
        near = self.written(arguments, limits.CALL_BYTES_MAX)
        with interrupts, self._lock:
            calls = self.client.calls
            unanswered = calls.unanswered(actor_id)
            if 0 <= info.max_pending_calls <= unanswered:
                if near is not None:
                    self.client.references.remove(self._box(arguments, near))
                raise PendingCallsLimitExceededError(
                    f"{unanswered} calls of actor {info.class_name} ({actor_id.hex()}) by this "
                    f"process wait already, and max_pending_calls is {info.max_pending_calls}; "
                    f"{method} was not called. Wait for some results first"
                )
            expected = calls.unsent()  # then somebody is about to send them
            box = self._box(arguments, near) if near is not None else b""
            data = b"" if box else arguments.whole()
            given = (data, arguments.dependencies, arguments.nested, self.running_task(), box)
            count, yields, unread_max, quiet = returned
            how = (group, retry, yields, unread_max, quiet)
            returns = calls.call(actor_id, info, method, count, retries, given, *how)
            if yields == m.ITEMS:
                limited = bool(unread_max or info.unread_max)
                self.client.streams.open(task_of(returns[0]), limited=limited)
            if unanswered < EAGER_TASKS or unanswered % COALESCE_TASKS == 0:
                self._send_calls()
            elif not expected:
                self._attend()
            return [counted(object_id) for object_id in returns]

    def find_actor(self, namespace: str, name: str) -> tuple[ObjectRef[Any], m.ActorInfo] | None:
        """The living actor of that name, which does not live on for that; None: there is none."""
        process_id = self.client.process_id
        answer = self._request(lambda seq: m.FindActor(seq, process_id, namespace, name))
        if not isinstance(answer, m.ActorFound) or answer.info is None:
            return None
        return WeakReference(object_id(answer.actor_id)), answer.info

    def kill_actor(self, actor_id: bytes, no_restart: bool) -> None:
        """End an actor; returns when the head knows."""
        self._request(lambda seq: m.KillActor(seq, actor_id, no_restart))

    def list_actors(self, namespace: str, all_namespaces: bool) -> list[tuple[str, str]]:
        """(namespace, name) of each living actor that has a name."""
        answer = self._request(lambda seq: m.ListActors(seq, namespace, all_namespaces))
        return answer.names if isinstance(answer, m.ActorNames) else []

    def _request(self, make: Any) -> m.Message | None:
        waiter = Waiter()
        with interrupts, self._lock:
            answer = self.client.ask(make, waiter)
            self._await(waiter, None)
        if not answer:
            raise ClusterShutdownError(f"there was no answer: {self.client.stopped}")
        if isinstance(answer[0], m.Rejected):
            raise _error(answer[0].code, answer[0].text)
        return answer[0]

    # ---- direct connections ----------------------------------------------------------------

    def _send_calls(self) -> None:
        """Send calls that wait for nothing else. With the lock held."""
        self.client.calls.flush()
        if self.client.outbox:
            self._transmit()
        self._tend_calls()

    def _respond(self) -> None:
        calls = self.client.calls
        if calls.unsent():
            calls.flush()
        self._tend_calls()
        self._tend_store()
        super()._respond()

    def _tend_calls(self) -> None:
        """Do what the machine wants done to sockets. With the lock held."""
        calls = self.client.calls
        while calls.connects or calls.drains:
            while calls.drains:
                actor = calls.drains.pop()
                self._read_link(actor.worker_id, turn_bytes=FRAME_BYTES_MAX)
                calls.drained(actor)
            while calls.connects:
                self._connect(calls.connects.pop())
            calls.flush()
        while calls.closes:
            self._close_link(calls.closes.pop())
        if calls.direct:
            for worker_id, messages in calls.direct.take().items():
                self._send_direct(worker_id, messages)

    def _connect(self, actor: ActorCaller) -> None:
        worker_id = actor.worker_id
        link = self._links.get(worker_id)
        if link is None and self.machine and actor.machine == self.machine:
            from zray.runtime.linux import direct  # who has a machine's id runs Linux

            link = direct.connect(worker_id)
            if link is not None:
                self._links[worker_id] = link
                self._links_changed()
        self.client.calls.connected(actor, direct=link is not None)

    def _send_direct(self, worker_id: bytes, messages: list[m.Message]) -> None:
        link = self._links.get(worker_id)
        if link is not None:
            try:
                for payload in codec.encode_local(messages):
                    link.writer.send_nowait(payload)
            except OSError:
                return  # reading tells
            if link.writer.pending:
                self._links_changed()

    def _read_links(self) -> None:
        """Read what actors have answered. With the lock held."""
        for worker_id in [*self._links]:
            self._read_link(worker_id)

    def _read_link(self, worker_id: bytes, turn_bytes: int = TURN_BYTES) -> None:
        link = self._links.get(worker_id)
        if link is None:
            return
        client = self.client
        if link.writer.pending:
            with contextlib.suppress(OSError):  # the stream has ended, as reading tells
                link.writer.flush()
        try:
            frames, ended = read_available(link.socket, link.reader, turn_bytes)
            for frame in frames:
                for message in codec.decode(frame).messages:
                    client.message(message)
        except ProtocolError:  # something else than the actor's machinery wrote to it
            ended = True
        if ended:
            self._close_link(worker_id)
            for actor in [*client.calls.actors.values()]:
                if actor.worker_id == worker_id:
                    client.calls.link_lost(actor)

    def _close_link(self, worker_id: bytes) -> None:
        link = self._links.pop(worker_id, None)
        if link is not None:
            self._link_closed(link)
            link.close()

    def _link_closed(self, link: DirectLink) -> None:
        """A socket is about to be closed. Called with the lock."""


def _error(code: str, text: str) -> ZrayError:
    kind = ActorAlreadyExistsError if code == ActorAlreadyExistsError.code else errors.ZrayError
    return kind(text, code=code)
