"""How records of Python's logging are written: as text or JSON, with whose they are.

Owns the handler of the root logger that ``LoggingConfig`` asks for. Field names are Ray's.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

ENCODINGS: Final = ("JSON", "TEXT")
TEXT: Final = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"
_record = logging.makeLogRecord({})
ATTRIBUTES: Final = frozenset({*vars(_record), "asctime", "message"})  # what each record has

Context = Callable[[], dict[str, str]]


class Records(logging.Formatter):
    """One line for each record. ``context``: ids and names of what runs now.

    ``attributes``: of records, which are written as well. What a program gives as ``extra`` is
    written, too; what JSON does not know as its ``repr``.
    """

    def __init__(self, encoding: str, attributes: Sequence[str], context: Context) -> None:
        super().__init__(TEXT)
        self._json = encoding == "JSON"
        self._attributes = attributes
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """A line of JSON, or a text with the same behind it."""
        added = {name: getattr(record, name, None) for name in self._attributes}
        added |= {name: value for name, value in vars(record).items() if name not in ATTRIBUTES}
        added |= {name: value for name, value in self._context().items() if value}
        added["timestamp_ns"] = int(record.created * 1e9)
        if not self._json:
            return " ".join([super().format(record), *(f"{k}={v}" for k, v in added.items())])
        found: dict[str, Any] = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            "process": record.process,
        }
        if record.exc_info:
            found["exc_text"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(found | added, default=repr, skipkeys=True)


class _Stderr(logging.StreamHandler[Any]):
    """Whatever ``sys.stderr`` is when a record is written."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """The stream of now."""
        return sys.stderr


_handler: logging.Handler | None = None


def configure(encoding: str, level: int, attributes: Sequence[str], context: Context) -> None:
    """Have the root logger write records from ``level`` on to stderr; in place of what was asked
    for before."""
    global _handler
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
    _handler = _Stderr()
    _handler.setLevel(level)
    _handler.setFormatter(Records(encoding, attributes, context))
    root.setLevel(level)
    root.addHandler(_handler)
