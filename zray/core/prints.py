"""What workers print, on its way to a process that may not read: bounded, and nothing is silent.

A process is taken to read what it was sent before it last said something. Past a bound on what it
has not read, lines are dropped; with the next that it gets it is told how many were.
"""

from __future__ import annotations

from zray import limits

_LINE_BYTES = 64  # what a line costs besides its text


class Prints:
    """Lines of workers on their way, bounded for those who do not read them."""

    def __init__(self) -> None:
        self._unread: dict[bytes, int] = {}  # process -> bytes since it last said something
        self._dropped: dict[bytes, int] = {}  # process -> lines, of which it does not know yet
        self.unread_bytes = 0  # of all

    def take(self, process: bytes, lines: list[str]) -> list[str]:
        """What of these lines to send to the process now; none: they are dropped."""
        if not self.fits(process, sum(len(line) + _LINE_BYTES for line in lines)):
            self._dropped[process] = self._dropped.get(process, 0) + len(lines)
            return []
        dropped = self._dropped.pop(process, 0)
        if dropped:
            lines = [f"({dropped} lines before this were dropped: nobody read them)", *lines]
        return lines

    def fits(self, process: bytes, size: int) -> bool:
        """Whether so many bytes may be sent to the process now; then they count."""
        unread = self._unread.get(process, 0)
        if unread >= limits.LOG_UNREAD_BYTES or self.unread_bytes >= limits.LOG_UNREAD_ALL_BYTES:
            return False
        self._unread[process] = unread + size
        self.unread_bytes += size
        return True

    def heard(self, process: bytes) -> None:
        """The process has said something, or has left."""
        self.unread_bytes -= self._unread.pop(process, 0)

    def gone(self, process: bytes) -> None:
        """Nothing more will be printed for it."""
        self.heard(process)
        self._dropped.pop(process, None)
