"""A pipe from a process to itself, by which one thread ends another's sleep in a poll."""

from __future__ import annotations

import os


class WakePipe:
    """Readable from ``wake`` until ``drain``, so that it can be polled beside sockets."""

    __slots__ = ("_read", "_write")

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._read

    def wake(self) -> None:
        """End the present or next poll; safe in a signal handler."""
        try:
            os.write(self._write, b".")
        except OSError:
            pass  # full: it wakes up anyway; or closed, and nobody polls any more

    def drain(self) -> None:
        """Whoever polls is awake: what woke it is done with."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            pass  # nothing did

    def close(self) -> None:
        """Give back its descriptors."""
        read, write = self._read, self._write
        self._read = self._write = -1  # somebody may still wake it
        os.close(read)
        os.close(write)
