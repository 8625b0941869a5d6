"""The actors that live on a raylet's node: which worker is which, and the calls that pass through.

Never looks into a call. What gets lost here or on the way is sent again by its caller.
"""

from __future__ import annotations

from collections.abc import Callable

from zray.core.machine import Outbox
from zray.core.raylet.completions import Completions
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.protocol.messages import (
    Calls,
    CancelCall,
    Exit,
    HeldActor,
    HeldTask,
    Items,
    Message,
    Replies,
    StopActor,
    Taken,
)

PASSED_ON = (Replies, Items, Taken)


class HostedActors:
    """``tell_head``: as ``HeadSession.tell``. ``kill``: end a worker, and say why."""

    def __init__(
        self,
        outbox: Outbox[bytes],
        scheduler: LocalScheduler,
        completions: Completions,
        tell_head: Callable[[Message], None],
        kill: Callable[[WorkerSlot, str], None],
    ) -> None:
        self._outbox = outbox
        self._scheduler = scheduler
        self._completions = completions
        self._tell_head = tell_head
        self._kill = kill
        self._slots: dict[bytes, WorkerSlot] = {}  # by actor

    def made(self, slot: WorkerSlot, actor_id: bytes, incarnation: int) -> None:
        """The constructor has returned: the worker is this actor from now on."""
        slot.actor = HeldActor(actor_id, incarnation, slot.worker_id)
        self._slots[actor_id] = slot

    def process_of(self, actor_id: bytes) -> WorkerSlot | None:
        """Its worker; None: the actor does not live here."""
        return self._slots.get(actor_id)

    def announced(self) -> list[HeldActor]:
        """The actors that live here, for the head's new session."""
        return [slot.actor for slot in self._slots.values() if slot.actor is not None]

    def slot(self, actor_id: bytes) -> WorkerSlot | None:
        """The worker that is the actor; None: it does not live here."""
        return self._slots.get(actor_id)

    def _slot(self, actor_id: bytes, incarnation: int) -> WorkerSlot | None:
        slot = self._slots.get(actor_id)
        if slot is None or slot.actor is None or slot.actor.incarnation != incarnation:
            return None
        return slot

    # ---- calls -----------------------------------------------------------------------------

    def on_calls(self, message: Calls | CancelCall) -> None:
        """From the head, for an actor here."""
        slot = self._slot(message.actor_id, message.incarnation)
        if slot is not None:
            self._outbox.send(slot.worker_id, message)

    def on_worker_calls(self, message: Calls | CancelCall) -> None:
        """From a worker here, for an actor here or elsewhere."""
        if self._slot(message.actor_id, message.incarnation) is not None:
            self.on_calls(message)
        else:
            self._tell_head(message)

    def pass_on(self, message: Replies | Items | Taken) -> None:
        """From a worker here, for a process here or elsewhere: by the shortest way.

        Answers of actors, and what generators and their consumers say to each other.
        """
        if not self._reaches(message):
            self._tell_head(message)

    def deliver(self, message: Replies | Items | Taken) -> None:
        """The same from the head, for a worker that was here."""
        self._reaches(message)

    def _reaches(self, message: Replies | Items | Taken) -> bool:
        target = message.caller if isinstance(message, Replies) else message.target
        if target not in self._scheduler.workers:
            return False
        self._outbox.send(target, message)
        return True

    # ---- ends ------------------------------------------------------------------------------

    def discard(self, held: HeldTask) -> None:
        """The head does not want the actor that this task has made."""
        slot = self._slot(held.task_id, held.attempt)
        if slot is not None:
            self._kill(slot, "the head has given this actor up")

    def on_stop(self, message: StopActor) -> None:
        """The head wants an incarnation to end: gracefully, or at once."""
        slot = self._slot(message.actor_id, message.incarnation)
        if slot is None:
            return
        if message.graceful:
            slot.exiting = True
            slot.exit_reason = message.reason
            self._outbox.send(slot.worker_id, Exit(0))
        else:
            self._kill(slot, message.reason)

    def exited(self, slot: WorkerSlot, text: str) -> None:
        """The worker is gone, and the actor with it."""
        actor = slot.actor
        if actor is not None and self._slots.get(actor.actor_id) is slot:
            del self._slots[actor.actor_id]
            intended = bool(slot.exit_reason)
            why = slot.exit_reason or text
            self._completions.exited(actor, intended=intended, text=why)
