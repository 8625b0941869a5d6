"""Which processes there are that hold things and are told of them: drivers, and nodes' workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray.core.head.members import Member, Members, NodeMember
from zray.core.head.recovery import Recovery
from zray.core.machine import Outbox
from zray.ids import split_tasks
from zray.protocol.messages import AskGone, Gone, Items, Message, Taken, Trace, Traced


class Processes:
    """``recovery``: while it is active, some of before may not have told of themselves."""

    def __init__(self, members: Members, outbox: Outbox[bytes], recovery: Recovery) -> None:
        self._members = members
        self._outbox = outbox
        self._recovery = recovery
        self.workers: dict[bytes, bytes] = {}  # worker -> its node
        self.handlers: dict[type[Message], Callable[[Any, Any, float], None]] = {
            AskGone: self.on_ask_gone,
            **dict.fromkeys((Items, Taken, Trace, Traced), self.on_mail),
        }

    def note_worker(self, sender: Member, process_id: bytes) -> None:
        """A member speaks for a process, which is a worker of it if it is a node."""
        if isinstance(sender, NodeMember) and process_id != sender.process_id:
            self.workers[process_id] = sender.process_id
            sender.workers[process_id] = None

    def lives(self, process_id: bytes) -> bool:
        """Whether there is such a driver or worker, as far as anybody has told."""
        return process_id in self.workers or process_id in self._members.jobs

    def send_to(self, process_id: bytes, message: Message) -> None:
        """Send to a driver, or to a worker by way of its node."""
        self._outbox.send(self.workers.get(process_id, process_id), message)

    def on_mail(self, sender: Member, message: Items | Taken | Trace | Traced, now: float) -> None:
        """Pass on what one process says to another. Only observers have others note more."""
        if isinstance(message, Trace) and self._members.member(sender.process_id) is not None:
            message.record_s = 0.0
        self.note_worker(sender, message.source)
        self.send_to(message.target, message)

    def on_ask_gone(self, sender: Member, message: AskGone, now: float) -> None:
        """Tell which of these processes have ended."""
        gone = b""
        if not self._recovery.active:  # until then nobody is known to have ended
            asked = split_tasks(message.process_ids)
            gone = b"".join(process for process in asked if not self.lives(process))
        self._outbox.send(sender.process_id, Gone(0, message.seq, gone))
