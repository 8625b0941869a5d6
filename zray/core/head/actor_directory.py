"""How actors are found, and who is told of what becomes of them.

Owns their names, the processes that watch them, those that watch what nobody has made yet, and the
last word on actors that are dead. Tells a state only once it is durable; changes none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from zray import limits
from zray.core.deadlines import Deadlines
from zray.core.head.actor_records import ActorRecord
from zray.core.head.actor_table import ActorTable
from zray.core.head.members import Member, Members
from zray.core.head.object_table import ObjectTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.machine import NEVER, Outbox
from zray.protocol import messages as m


class ActorDirectory:
    """``records``: those of the actors that are not dead, kept by `incarnations`."""

    def __init__(
        self,
        *,
        epoch: int,
        outbox: Outbox[bytes],
        members: Members,
        processes: Processes,
        objects: ObjectTable,
        recovery: Recovery,
        records: ActorTable,
    ) -> None:
        self._epoch = epoch
        self._outbox = outbox
        self._members = members
        self._processes = processes
        self._objects = objects
        self._recovery = recovery
        self._records = records
        self.names: dict[str, dict[str, bytes]] = {}  # by namespace
        self.dead: dict[bytes, m.ActorState] = {}
        self.last_named: dict[str, bytes] = {}  # dead ones, by the name that they had
        # Watched, and not heard of yet: whoever made it may tell of it until then.
        self.unmade = Deadlines()
        self._unmade_watchers: dict[bytes, dict[bytes, None]] = {}  # by actor
        self._unmade_watched: dict[bytes, dict[bytes, None]] = {}  # by process
        self.watching: dict[bytes, dict[bytes, None]] = {}  # process -> actors
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            m.ActorWatch: self.on_watch,
            m.FindActor: self.on_find,
            m.ListActors: self.on_list,
        }

    # ---- names -----------------------------------------------------------------------------

    def enter(self, record: ActorRecord) -> None:
        """There is such an actor."""
        if record.info.name:
            self.names.setdefault(record.info.namespace, {})[record.info.name] = record.actor_id

    def named(self, info: m.ActorInfo) -> ActorRecord | None:
        """The actor that has this name already."""
        actor_id = self._find(info.namespace, info.name) if info.name else None
        return self._records[actor_id] if actor_id is not None else None

    def free_name(self, record: ActorRecord) -> None:
        """The actor is about to be dead: another may have its name."""
        info = record.info
        if self._find(info.namespace, info.name) == record.actor_id:
            del self.names[info.namespace][info.name]
            if not self.names[info.namespace]:
                del self.names[info.namespace]

    def _find(self, namespace: str, name: str) -> bytes | None:
        return self.names.get(namespace, {}).get(name)

    def on_find(self, sender: Member, message: m.FindActor, now: float) -> None:
        """Look an actor up by name; who asks then holds a handle."""
        self._processes.note_worker(sender, message.holder)
        actor_id = self._find(message.namespace, message.name)
        if actor_id is None:
            self._outbox.send(sender.process_id, m.ActorFound(0, message.seq))
            return
        record = self._records[actor_id]
        self._objects.hold(message.holder, record.handle, process=True)
        found = m.ActorFound(0, message.seq, actor_id, record.info)
        record.when_stored(lambda: self._outbox.send(sender.process_id, found))

    def on_list(self, sender: Member, message: m.ListActors, now: float) -> None:
        """The names of living actors, of one namespace or of all."""
        spaces = self.names if message.all_namespaces else (message.namespace,)
        wanted = [(space, name) for space in spaces for name in self.names.get(space, ())]
        self._outbox.send(sender.process_id, m.ActorNames(0, message.seq, wanted))

    # ---- watchers --------------------------------------------------------------------------

    def made(self, record: ActorRecord) -> None:
        """Its creator has told of it, who watches it, as do those who have waited for it."""
        self._watch(record, record.owner)
        self.unmade.drop(record.actor_id)
        for watcher in self._take_watchers(record.actor_id):
            self._watch(record, watcher)

    def _take_watchers(self, actor_id: bytes) -> dict[bytes, None]:
        """Those who have waited for an actor that nobody had told of."""
        watchers = self._unmade_watchers.pop(actor_id, {})
        for watcher in watchers:
            watched = self._unmade_watched[watcher]
            del watched[actor_id]
            if not watched:
                del self._unmade_watched[watcher]
        return watchers

    def _watch(self, record: ActorRecord, watcher: bytes) -> None:
        record.watchers[watcher] = None
        self.watching.setdefault(watcher, {})[record.actor_id] = None

    def on_watch(self, sender: Member, message: m.ActorWatch, now: float) -> None:
        """A process wants to hear what becomes of these actors."""
        self._processes.note_worker(sender, message.watcher)
        for actor_id in message.actor_ids:
            record = self._records.get(actor_id)
            if record is not None:
                self._watch(record, message.watcher)
                if self._may_be_told(record):
                    self._processes.send_to(
                        message.watcher, self._state_of(record, message.watcher)
                    )
            elif actor_id in self.dead:
                self.tell_dead(actor_id, message.watcher)
            else:  # it may be about to be made: its handle has been faster than its creator
                if actor_id not in self.unmade:
                    self.unmade.put(actor_id, now + limits.UNKNOWN_OBJECT_S)
                self._unmade_watchers.setdefault(actor_id, {})[message.watcher] = None
                self._unmade_watched.setdefault(message.watcher, {})[actor_id] = None

    def watcher_gone(self, process_id: bytes) -> None:
        """The process has ended."""
        for actor_id in self.watching.pop(process_id, ()):
            self._records[actor_id].watchers.pop(process_id, None)
        for actor_id in self._unmade_watched.pop(process_id, ()):
            del self._unmade_watchers[actor_id][process_id]

    # ---- telling ---------------------------------------------------------------------------

    def tell(self, record: ActorRecord) -> None:
        """Something has changed, durably: its watchers hear of it, if it can be told."""
        if self._may_be_told(record):
            self._tell_watchers(record)

    def _may_be_told(self, record: ActorRecord) -> bool:
        return record.may_be_told(away=bool(self._members.why_away(record.node_id)))

    def _away_changed(self, node_id: bytes) -> None:
        node = self._members.nodes.get(node_id)
        for actor_id in node.actors if node is not None else ():
            self.tell(self._records[actor_id])
        for record in self._records.doubtful(node_id):
            self.tell(record)

    def tell_end(self, record: ActorRecord) -> None:
        """The actor is dead, durably: its watchers hear of it, and it is kept for later ones."""
        self._tell_watchers(record)
        self.dead[record.actor_id] = self._state_of(record, record.owner)
        if len(self.dead) > limits.ACTORS_DEAD_KEPT_MAX:
            del self.dead[next(iter(self.dead))]
        if record.info.name:
            self.last_named.pop(record.info.name, None)
            self.last_named[record.info.name] = record.actor_id
            if len(self.last_named) > limits.ACTORS_DEAD_KEPT_MAX:
                del self.last_named[next(iter(self.last_named))]
        for watcher in record.watchers:
            self.watching.get(watcher, {}).pop(record.actor_id, None)

    def _tell_watchers(self, record: ActorRecord) -> None:
        for watcher in record.watchers:
            self._processes.send_to(watcher, self._state_of(record, watcher))

    def tell_dead(self, actor_id: bytes, target: bytes) -> None:
        """Tell that an actor is dead, or was never made."""
        known = self.dead.get(actor_id)
        if known is not None:
            state = msgspec.structs.replace(known, target=target)
        else:
            text = f"actor {actor_id.hex()} is not known: it ended, or was never made"
            state = m.ActorState(0, target, actor_id, m.ACTOR_DEAD, 0, 0, text=text)
        self._processes.send_to(target, state)

    def _state_of(self, record: ActorRecord, target: bytes) -> m.ActorState:
        node = self._members.nodes.get(record.node_id)
        member = self._members.member(self._processes.workers.get(target, target))
        sessions = record.link + (member.sessions if member is not None else 0)
        text, away = record.text, ""
        if record.state == m.ACTOR_ALIVE and member is not node:  # who is there as well reaches it
            away = self._members.why_away(record.node_id)
            text = away or text
        return m.ActorState(
            *(0, target, record.actor_id, record.state, record.incarnation),
            *((self._epoch << 32) + sessions, record.node_id, record.worker_id),
            node.info.machine if node is not None else "",
            text[: limits.TEXT_MAX],  # a node of another language may have filled it
            record.error,
            bool(away),
        )

    # ---- actors that nobody has made yet -----------------------------------------------------

    def wait_for_creators(self, now: float) -> None:
        """The head has just recovered: creators that have returned may be about to tell."""
        self.unmade.postpone(now + limits.UNKNOWN_OBJECT_S)

    def step(self, now: float) -> None:
        """Tell of actors that can be reached no more, or again, and of those that nobody makes."""
        if self._members.away_changed:
            changed, self._members.away_changed = self._members.away_changed, []
            for node_id in changed:
                self._away_changed(node_id)
        if not self.unmade or self._recovery.active:
            return
        for actor_id in self.unmade.due(now):
            for watcher in self._take_watchers(actor_id):
                self.tell_dead(actor_id, watcher)

    def deadline(self) -> float:
        """When ``step`` has something to do."""
        if self._recovery.active:
            return NEVER
        return self.unmade.soonest()
