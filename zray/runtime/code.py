"""Functions and classes that travel by value, with the places that their tracebacks name.

Owns how a code object travels: cloudpickle's way, and beside it the file that the user wrote it in
and the text of its lines, so that a traceback made in another process, or on a machine without
that file, shows what the user would see at home. Must import cloudpickle, and so only be imported
when a value needs it (start-up time). Only drivers and workers may import it.
"""

from __future__ import annotations

import io
import linecache
import os
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle

from zray import limits

_Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, for which all code is of a file."""

    def __init__(
        self,
        file: Any,
        protocol: int,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    ) -> None:
        super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)
        self._shown: set[tuple[str, int]] = set()  # lines whose text is in the pickle
        self._room = limits.SOURCE_CHARS_MAX

    def reducer_override(self, obj: Any) -> Any:
        """As in ``pickle.Pickler``: code keeps its file and the text of its lines."""
        if type(obj) is types.CodeType:
            return self._code(obj)
        return super().reducer_override(obj)

    def _code(self, code: types.CodeType) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        made: _Reduced = self.dispatch_table[types.CodeType](code)
        name = code.co_filename
        numbers = {number for number in _lines(code) if (name, number) not in self._shown}
        if not numbers:
            return restore, (made, name)
        first, last = min(numbers), max(numbers)
        lines = linecache.getlines(name)
        text = "".join(lines[first - 1 : last])
        self._room -= len(text)
        if not text or self._room < 0:
            return restore, (made, name)
        self._shown.update((name, number) for number in range(first, last + 1))
        return restore, (made, name, first, text, _size(name))


def dumps(
    value: Any,
    protocol: int,
    buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
) -> bytes:
    """The pickle of a value, of whose code that no other process can import all is in it."""
    with io.BytesIO() as file:
        Pickler(file, protocol, buffer_callback).dump(value)
        return file.getvalue()


def restore(
    made: _Reduced, name: str, first: int = 0, text: str = "", size: int | None = None
) -> types.CodeType:
    """The code object of a pickle; its lines are known to ``linecache`` from then on.

    Args:
        made: what cloudpickle makes of it: a constructor and its arguments.
        name: the file that it was written in.
        first: number of the first line in ``text``, from 1.
        text: those lines.
        size: bytes of that file, None where it was none (a notebook's cell).
    """
    kind, arguments = made
    code: types.CodeType = kind(*arguments)
    if text:
        _remember(name, first, text, size)
    return code.replace(co_filename=name)


def _remember(name: str, first: int, text: str, size: int | None) -> None:
    try:
        if size is not None and os.stat(name).st_size == size:
            return  # most likely the same file, with all of its lines
    except (OSError, ValueError):
        pass
    known = linecache.cache.get(name)
    lines = [*known[2]] if known is not None and len(known) > 1 else []
    new = text.splitlines(keepends=True)
    lines.extend("\n" for _ in range(first - 1 + len(new) - len(lines)))
    lines[first - 1 : first - 1 + len(new)] = new
    # Without a time of change it is taken as it is, whatever the file of that name here says.
    linecache.cache[name] = (sum(map(len, lines)), None, lines, name)


def _size(name: str) -> int | None:
    entry = linecache.cache.get(name)
    return entry[0] if entry is not None and len(entry) > 1 and entry[1] is not None else None


def _lines(code: types.CodeType) -> Iterator[int]:
    """The numbers of all lines of the code and of what is defined in it."""
    for number in (code.co_firstlineno, *(line for _, _, line in code.co_lines())):
        if number:  # what the compiler adds has none
            yield number
    for constant in code.co_consts:
        if type(constant) is types.CodeType:
            yield from _lines(constant)
