"""A hold on a process that is not confused when its pid becomes another's (pidfd_open(2))."""

from __future__ import annotations

import contextlib
import os
import signal

from zray.runtime.linux import machine


class ProcessHandle:
    """``fileno`` is readable once the process has ended."""

    def __init__(self, pid: int) -> None:
        """
        Raises:
            ProcessLookupError: there is none with this pid.
            OSError: this process has no descriptor for it.
        """
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """Readable once the process has ended (pidfd_open(2))."""
        return self._fd

    def signal(self, number: int) -> None:
        """Does nothing to a process that has been reaped."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def has_ended(self) -> bool:
        """Whether it runs no more, though its parent may not have reaped it."""
        return machine.has_ended(self.pid)

    def close(self) -> None:
        """Give back its descriptor."""
        os.close(self._fd)
