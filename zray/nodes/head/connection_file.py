"""A head's connection file: written when the head is there, and anew when other heads are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from zray.core.machine import NEVER
from zray.errors import KeyFileError
from zray.runtime.connection import ConnectionInfo
from zray.runtime.log import Log

_RETRY_S: Final = 5.0


class ConnectionFile:
    """One head's.

    Attributes:
        due_s: when it is to be written anew, by the head's clock.
    """

    def __init__(self) -> None:
        self.due_s = NEVER
        self._is_there = False

    def write(self, path: Path, info: ConnectionInfo, now: float, log: Log) -> None:
        """Where it cannot be written anew, it stays as it was, until that can be.

        Raises:
            KeyFileError: it cannot be written for the first time.
        """
        self.due_s = NEVER
        try:
            info.write(path)
        except KeyFileError as error:
            if not self._is_there:
                raise
            self.due_s = now + _RETRY_S
            log(f"the connection file stays as it was, and is tried again: {error}")
        self._is_there = True
