"""Ids as objects, with Ray's names; everywhere else in zray they are bytes (``zray.ids``).

Imports the standard library only.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

from zray.ids import TASK_BYTES

_I = TypeVar("_I", bound="BaseID")
_NIL_BYTE = b"\xff"


class BaseID:
    """An id of one kind: its bytes, comparable and hashable. As Ray's, but for the sizes."""

    __slots__ = ("_bytes",)
    _size = TASK_BYTES

    def __init__(self, id: bytes) -> None:
        """Args:
            id: the id's bytes.

        Raises:
            TypeError: it is not bytes.
            ValueError: there are not ``size()`` of them.
        """
        self._bytes = checked(type(self).__name__, id, self._size)

    @classmethod
    def size(cls) -> int:
        """How many bytes an id of this kind has."""
        return cls._size

    @classmethod
    def nil(cls: type[_I]) -> _I:
        """The id of nothing."""
        return cls(_NIL_BYTE * cls._size)

    @classmethod
    def from_binary(cls: type[_I], id: bytes) -> _I:
        """As the constructor."""
        return cls(id)

    @classmethod
    def from_hex(cls: type[_I], text: str) -> _I:
        """The inverse of ``hex``."""
        return cls(bytes.fromhex(text))

    @classmethod
    def from_random(cls: type[_I]) -> _I:
        """One that no other is equal to."""
        return cls(os.urandom(cls._size))

    def binary(self) -> bytes:
        """The bytes."""
        return self._bytes

    def hex(self) -> str:
        """The bytes as hexadecimal digits."""
        return self._bytes.hex()

    def is_nil(self) -> bool:
        """Whether it is the id of nothing."""
        return is_nil(self._bytes)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._bytes == self._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._bytes,)


def checked(kind: str, id: Any, size: int) -> bytes:
    """The bytes of an id.

    Raises:
        TypeError, ValueError: they are none.
    """
    if not isinstance(id, bytes):
        raise TypeError(f"{kind} needs bytes, got {type(id).__name__}")
    if len(id) != size:
        raise ValueError(f"{kind} needs {size} bytes, got {len(id)}")
    return id


def is_nil(id: bytes) -> bool:
    """Whether these bytes are the id of nothing."""
    return id == _NIL_BYTE * len(id)


class UniqueID(BaseID):
    """An id that says nothing of what it is of."""

    __slots__ = ()


class NodeID(UniqueID):
    """Of a node."""

    __slots__ = ()


class WorkerID(UniqueID):
    """Of a process: a worker or a driver."""

    __slots__ = ()


class FunctionID(UniqueID):
    """Of a remote function."""

    __slots__ = ()


class ActorClassID(UniqueID):
    """Of an actor class."""

    __slots__ = ()


class JobID(BaseID):
    """Of what one driver, or one detached actor, has on the cluster."""

    __slots__ = ()

    @classmethod
    def from_int(cls, number: int) -> JobID:
        """The inverse of ``int``."""
        return cls(number.to_bytes(cls._size, "big"))

    def int(self) -> int:
        """The id as a number."""
        return int.from_bytes(self._bytes, "big")


class TaskID(BaseID):
    """Of a task or of a call of an actor."""

    __slots__ = ()


class ActorID(BaseID):
    """Of an actor."""

    __slots__ = ()


class PlacementGroupID(BaseID):
    """Of a placement group."""

    __slots__ = ()
