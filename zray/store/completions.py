"""What a store's writer tells the head's loop: which batches are durable; that there is news."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable


class Completions:
    """Tokens from a writer's thread to the reader's, and a pipe that wakes the reader."""

    def __init__(self) -> None:
        self._tokens: deque[int] = deque()
        self._read_end = self._write_end = -1

    def open(self) -> None:
        """Make the pipe.

        Raises:
            OSError: no descriptors are left.
        """
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)

    # ---- the reader's ----------------------------------------------------------------------

    def fileno(self) -> int | None:
        """Readable when there is news."""
        return self._read_end if self._read_end >= 0 else None

    def rest(self) -> None:
        """Make it unreadable; to be called before looking, so that what comes meanwhile wakes."""
        if self._read_end >= 0:
            with contextlib.suppress(OSError):  # it stays readable
                os.read(self._read_end, 1 << 16)

    def take(self) -> list[int]:
        """What has become durable since the last call, in order."""
        tokens: list[int] = []
        while self._tokens:
            tokens.append(self._tokens.popleft())
        return tokens

    def close_reader(self) -> None:
        """What has completed can still be taken."""
        if self._read_end >= 0:
            os.close(self._read_end)
            self._read_end = -1

    # ---- the writer's ----------------------------------------------------------------------

    def add(self, tokens: Iterable[int]) -> None:
        """These are durable."""
        self._tokens.extend(tokens)
        self.wake()

    def wake(self) -> None:
        """There is news."""
        # A full pipe is readable already; a closed one has no reader left. The head looks once a
        # second though nobody tells it.
        with contextlib.suppress(OSError):
            os.write(self._write_end, b"\0")

    def close_writer(self) -> None:
        """Nothing comes any more."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1
