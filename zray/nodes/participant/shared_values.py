"""How a driver or worker shares memory with its node: large values are written there, and read.

A part of Participant. Where there is no such node, values travel in chunks; nothing else differs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.core.client.client import Client
from zray.errors import ReentrantCallError
from zray.ids import object_id
from zray.nodes.participant.lease_links import LeaseLinks
from zray.protocol import messages as m
from zray.runtime import serialization, task_errors
from zray.runtime.buffers import Parts
from zray.runtime.interrupts import interrupts
from zray.runtime.references import ObjectRef, counted

if TYPE_CHECKING:  # Linux only
    from zray.nodes.participant.store_client import StoreClient


class SharedValues(LeaseLinks):
    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._store: StoreClient | None = None
        self._store_at = 0.0  # when to look for one again
        self._store_pause_s = limits.STORE_RETRY_FIRST_S  # the next time after that
        self._store_waits = False  # packets wait until the socket takes them
        client.values.near = self

    def _store_name(self) -> bytes:
        """Under which name a store of this machine would serve this process; empty: none does."""
        return b""

    def _collect_dropped(self) -> None:
        """Count references that were dropped. Called with the lock."""

    def _store_expected(self) -> bool:
        """Whether there will be a store of this machine in a moment."""
        return False

    def _store_changed(self) -> None:
        """There is another socket to poll, or for something else. Called with the lock."""

    def _store_leaves(self) -> None:
        """The socket is about to be closed. Called with the lock."""

    # ---- the connection --------------------------------------------------------------------

    def _attached(self) -> StoreClient | None:
        """The node's store, if there is one here. With the lock held."""
        if self._store is None and time.monotonic() >= self._store_at:
            self._store_at = time.monotonic() + self._store_pause_s
            self._store_pause_s = min(2 * self._store_pause_s, limits.STORE_RETRY_MAX_S)
            name = self._store_name()
            if name:
                from zray.nodes.participant import store_client

                values, process_id = self.client.values, self.client.process_id
                self._store = store_client.attach(
                    name,
                    process_id,
                    values.arrived_near,
                    values.missing_near,
                    self.client.near.relieve,
                )
                if self._store is not None:
                    self.client.near.keep_bytes = self._store.keep_bytes
                    self._store_waits = False
                    self._store_changed()
        return self._store

    def _store_lost(self) -> None:
        """The node has ended: what this process had written there it has still."""
        store, self._store = self._store, None
        if store is None:
            return
        self._store_leaves()
        self.client.near.node_ended()
        self._store_pause_s = limits.STORE_RETRY_FIRST_S
        own, told, taking = store.rescued()
        store.close()
        self.client.references.rescue(own, told)
        for oid in taking:
            if self.client.here(oid) is None:
                self.client.values.missing_near(oid, "", "")

    def _store_due(self) -> bool:
        """Whether there is something to say to the node's store. With the lock held."""
        return self._store is not None and self._store.due()

    def _abandon_store(self) -> None:
        """In a forked child: the socket is the parent's."""
        if self._store is not None:
            self._store.link.close()
            self._store = None

    def _read_store(self) -> None:
        """With the lock held."""
        if self._store is not None and not self._store.read():
            self._store_lost()

    def _tend_store(self) -> None:
        """Say what is not used any more. With the lock held."""
        store = self._store
        if store is None:
            return
        try:
            if store.due():
                store.tell()
        except OSError:
            self._store_lost()
            return
        if store.link.pending != self._store_waits:
            self._store_waits = store.link.pending
            self._store_changed()

    # ---- for the Client machine --------------------------------------------------------------

    def take(self, oid: bytes) -> bool:
        """Ask the node for an object; False: it cannot be asked."""
        store = self._attached()
        if store is None:
            return False
        try:
            store.take(oid)
        except OSError:
            self._store_lost()
            return False
        return True

    def published(self, oid: bytes) -> bytes:
        """An own object there is about to be told of; the node that has it."""
        if self._store is None:
            return b""
        self._store.published(oid)
        return self._store.node_id

    def told(self) -> tuple[list[m.Outcome], bytes]:
        """Own objects there that the cluster was told of, and the node that has them."""
        return (self._store.told(), self._store.node_id) if self._store is not None else ([], b"")

    def _tell_published(self) -> None:
        """Before the outbox is sent: the node hears first of what the cluster will ask it for."""
        if self._store is not None:
            try:
                self._store.tell_published()
            except OSError:
                self._store_lost()

    def unput(self, oid: bytes) -> None:
        """An own object there that nobody knows of is not needed any more."""
        if self._store is not None:
            self._store.unput(oid)

    def offered(self, oid: bytes) -> m.Outcome | None:
        """A value that the node has told of by itself. With the lock held."""
        store = self._store
        if store is None:
            return None
        if oid not in store.offered:
            self._read_store()
        return store.offered.pop(oid, None)

    def forget_offered(self) -> None:
        """What was offered will not be needed. With the lock held."""
        if self._store is not None:
            self._store.offered.clear()

    # ---- values ----------------------------------------------------------------------------

    def put(self, value: Any, oid: bytes = b"") -> ObjectRef[Any]:
        """Keep a value for the cluster.

        ``oid``: as which, unless an attempt of before has left something of that id here.

        Raises:
            SerializationError: it cannot be pickled.
            ObjectStoreFullError: it is large, and the node has no memory for it.
        """
        parts = serialization.dumps_parts(value)
        references = self.client.references
        if oid and not references.is_new(oid):
            oid = b""
        if parts.size <= limits.INLINE_BYTES_MAX and not parts.contained:
            try:
                with self._lock:  # an interrupt may come: at worst a value stays that nobody has
                    return counted(references.put(parts.to_bytes(), [], oid))
            except ReentrantCallError:  # whoever was interrupted has it
                raise
            except BaseException:
                self._lock.let_go()
                raise
        with interrupts:
            outcome = self.share(parts, oid)
            with self._lock:
                if outcome is not None:
                    return counted(references.put_near(outcome))
                return counted(references.put(parts.to_bytes(), parts.contained, oid))

    def keep_bytes(self, data: Any, least: int = limits.INLINE_BYTES_MAX) -> bytes:
        """Keep bytes, not a value that can be had by ``get``, for the cluster until the job ends.

        ``least``: as ``share``. What is in the node's memory is there after a restart of the head
        although this process has ended; what is not is there although the node has.

        Returns:
            The object's id.

        Raises:
            ObjectStoreFullError: as ``put``.
        """
        with memoryview(data) as view, interrupts:
            parts = Parts([view], [])
            outcome = self.share(parts, least=least)
            with self._lock:
                references = self.client.references
                if outcome is not None:
                    oid = references.put_near(outcome)
                else:
                    oid = references.put(bytes(view), [])
                references.publish([oid])
                return oid

    def put_error(self, data: bytes) -> ObjectRef[Any]:
        """Keep an error, which ``get`` raises; ``data``: its record."""
        with interrupts, self._lock:
            return counted(self.client.references.put_error(data))

    def share(
        self, parts: Parts, oid: bytes = b"", least: int = limits.INLINE_BYTES_MAX
    ) -> m.Outcome | None:
        """Write a value of more than ``least`` bytes to the node's memory, as this process's own
        object.

        Returns:
            Its outcome, which says LOCATED; None: it is small, or there is no such memory.

        Raises:
            ObjectStoreFullError: the node has no memory for it.
        """
        if parts.size <= least:
            return None
        with interrupts:
            with self._lock:
                store = self._attached()
                while store is None and self._store_expected():
                    self._unlocked(time.sleep, limits.STORE_RETRY_FIRST_S)
                    store = self._attached()
                if store is None:
                    return None
                self._collect_dropped()  # their memory is warm: it is used first
                oid = oid or object_id(self.client.new_task())
                try:
                    region = store.reserve(parts.size, self._wait_for_store)
                except OSError:
                    self._store_lost()
                    return None
            try:
                interrupts.allow(store.write, region, parts)
                with self._lock:
                    store.seal(oid, m.VALUE, region, parts.contained)
            except OSError:
                with self._lock:
                    if self._store is store:
                        self._store_lost()
                return None
            except BaseException:  # an interrupt
                with self._lock:
                    store.give_up(region)
                raise
        return m.Outcome(oid, m.VALUE | m.LOCATED, parts.size, b"", parts.contained)

    def written(self, arguments: serialization.Arguments, least: int) -> m.Outcome | None:
        """Write arguments of more than ``least`` bytes there, as ``share`` does."""
        parts = arguments.parts
        if parts is None and len(arguments.data) > least:
            parts = Parts([arguments.data], arguments.nested)
        if parts is None or parts.size <= least:
            return None
        return self.share(parts)

    def kept(self, parts: Parts, oid: bytes) -> m.Outcome:
        """The outcome of a task or call: in shared memory, or with its value."""
        shared = self.share(parts, oid)
        if shared is not None:
            return shared
        data = parts.to_bytes()
        return m.Outcome(oid, m.VALUE, len(data), data, parts.contained)

    def unkeep(self, outcomes: list[m.Outcome]) -> None:
        """They will not be told of: what follows them failed."""
        with self._lock:
            for outcome in outcomes:
                if outcome.kind & m.LOCATED:
                    self.unput(outcome.object_id)

    def _wait_for_store(self, timeout_s: float) -> None:
        if self._may_lead():
            self._lead_once(timeout_s)
        else:
            self._follow(None, timeout_s)


def load(outcome: m.Outcome) -> Any:
    """The value of an outcome.

    Raises:
        The error that it is, if it is one.
    """
    data = bytes_of(outcome)
    if outcome.kind & m.ERROR:
        raise task_errors.load_exception(data)
    return serialization.loads(data)


def bytes_of(outcome: m.Outcome) -> bytes | memoryview:
    """The bytes of a value, wherever they are."""
    value: Any = outcome.value
    return value if type(value) is bytes else value.view()
