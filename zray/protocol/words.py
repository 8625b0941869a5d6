"""How people write ids: in hexadecimal digits."""

from __future__ import annotations

from zray.ids import TASK_BYTES

_DIGITS = frozenset("0123456789abcdef")


def is_hex(word: str) -> bool:
    """Whether it has digits of an id alone."""
    return _DIGITS.issuperset(word)


def is_id(word: str) -> bool:
    """Whether it is a whole id of 16 bytes."""
    return len(word) == 2 * TASK_BYTES and is_hex(word)
