"""What a worker tells of itself while its user code runs: its task, its stacks.

Answered by the control thread, so it is told unless Python itself does not go on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from zray import limits
from zray.errors import NotFoundError
from zray.protocol import messages as m


class Questions:
    """``running``: the name of a task that runs here, by its id; None: it does not.

    ``tell``: to the raylet.
    """

    def __init__(
        self,
        running: Callable[[bytes], str | None],
        tell: Callable[[list[m.Message]], None],
    ) -> None:
        self._running = running
        self._tell = tell
        self.handlers: dict[type[m.Message], Callable[[Any], None]] = {
            m.Locate: self.on_locate,
            m.Examine: self.on_examine,
        }

    def on_locate(self, message: m.Locate) -> None:
        """Does the task run here?"""
        subject = bytes.fromhex(message.word)
        title = self._running(subject)
        code = NotFoundError.code if title is None else ""
        title = (title or "")[: limits.NAME_MAX]
        me = (m.A_TASK, subject, title)
        answer = m.Answered(0, message.source, message.seq, code, "", *me)
        self._tell([answer])

    def on_examine(self, message: m.Examine) -> None:
        """Where are the threads?"""
        data = stacks().encode("utf-8", "backslashreplace")[: limits.EXAMINED_BYTES_MAX]
        self._tell([m.Examined(0, message.source, message.seq, data)])


def stacks() -> str:
    """The stack of each thread of this process but the calling one, the innermost call last."""
    import traceback

    names = {thread.ident: thread.name for thread in threading.enumerate()}
    here = threading.get_ident()
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident != here:
            lines = "".join(traceback.format_stack(frame))
            parts.append(f"Thread {ident} ({names.get(ident, 'not of threading')})\n{lines}")
    return "\n".join(parts)
