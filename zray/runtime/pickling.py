"""Python objects to pickles, and the references that are met on the way.

Owns which pickler a value needs: the fast one, or the one that sends code along; and where its
large parts go. What a pickle stands in is for zray.runtime.serialization. Must import cloudpickle
only when a value needs it (start-up time), and never unpickle.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from zray import limits
from zray.errors import MessageTooLargeError, OutOfBandReferenceError
from zray.runtime.buffers import Piece, assemble

PROTOCOL = 5

# How a pickle of protocol 5 names the module of a class or function of the user's script. Such
# things travel by value, since another process's __main__ is not the user's script.
_NAMES_MAIN = b"\x8c\x08__main__"

# A bytes-like object of this size or more is no part of a pickle's frames: the pickler writes a
# header that ends with the object's length, then the object itself.
PAYLOAD_BYTES = 64 << 10

_T = TypeVar("_T")
_dumps = pickle.dumps


class _Collecting(threading.local):
    """The ids found so far by this thread's running dumps; None outside of one.

    ``handle``: the object of the handle that was pickled last outside of one.
    """

    found: list[bytes] | None = None
    handle = b""
    looks = False  # what is pickled outside of one goes nowhere


_collecting = _Collecting()
_stray_reference_hook: Callable[[bytes], None] | None = None


def set_stray_reference_hook(hook: Callable[[bytes], None] | None) -> None:
    """``hook(object_id)`` learns of references that are pickled outside of zray.

    Nobody can know who will unpickle these, so their objects have to stay until the job ends.
    """
    global _stray_reference_hook
    _stray_reference_hook = hook


def note_handle(object_id: bytes) -> None:
    """An actor's handle is about to be pickled, and with it the reference to this object."""
    if _collecting.found is None:
        _collecting.handle = object_id


def note_reference(object_id: bytes) -> None:
    """A reference is being pickled; called by its ``__reduce__``.

    Raises:
        OutOfBandReferenceError: it is a reference, pickled outside of zray, where the environment
            forbids that: RAY_allow_out_of_band_object_ref_serialization, or ZRAY_ALLOW_OUT_OF_BAND.
    """
    found = _collecting.found
    if found is not None:
        found.append(object_id)
        return
    if object_id != _collecting.handle and not _strays_are_allowed():
        raise OutOfBandReferenceError(
            f"the reference {object_id.hex()} was pickled outside of zray, which the environment "
            "forbids, since its object would have to stay until the job ends: pass the reference "
            "to a task, in a value or to an actor, or allow it with ZRAY_ALLOW_OUT_OF_BAND=1 (or "
            "RAY_allow_out_of_band_object_ref_serialization=1)"
        )
    if not _collecting.looks:
        note_stray_reference(object_id)


def check_captured(function: Any, name: str) -> None:
    """Check that a function captures no reference, where the environment forbids that.

    Raises:
        OutOfBandReferenceError: it does.
    """
    if _strays_are_allowed():
        return
    from zray.runtime import code

    _collecting.looks = True
    try:
        code.dumps(function, PROTOCOL)
    except OutOfBandReferenceError as error:
        raise OutOfBandReferenceError(f"{name} captures a reference: {error.args[0]}") from None
    finally:
        _collecting.looks = False


def _strays_are_allowed() -> bool:
    for name in ("ZRAY_ALLOW_OUT_OF_BAND", "RAY_allow_out_of_band_object_ref_serialization"):
        if name in os.environ:
            return os.environ[name].lower() in ("1", "true")
    return True


def note_stray_reference(object_id: bytes) -> None:
    """The object must stay until the job ends, because zray cannot follow its reference."""
    if _stray_reference_hook is not None:
        _stray_reference_hook(object_id)


class _NamesMain(Exception):
    """The pickle names something of the user's script, which has to travel by value."""


def collected(
    pickled: Callable[[Any, bool], _T], value: Any, by_value: bool
) -> tuple[_T, list[bytes]]:
    """What ``pickled(value, by_value)`` makes, and the references that it met, unique and in order.

    Without ``by_value`` it is asked for that only where the quick one does not do.

    Raises:
        MessageTooLargeError: there are too many of these.
    """
    outer = _collecting.found
    found: list[bytes] = []
    _collecting.found = found
    try:
        if not by_value:
            try:
                made = pickled(value, False)
            except MemoryError:
                raise
            except Exception:
                by_value = True
        if by_value:
            found.clear()
            made = pickled(value, True)
    finally:
        _collecting.found = outer
    if len(found) > 1:
        found = list(dict.fromkeys(found))
        check_count(len(found), "a value")
    return made, found


def encode(value: Any, by_value: bool = False) -> tuple[bytes, list[bytes]]:
    """One pickle, and the references that it met; the pickler's own error, whatever it is.

    ``by_value`` asks for the pickler that can send code, without trying the faster one first.
    """
    return collected(in_band, value, by_value)


def check_count(references: int, what: str) -> None:
    """Whether so many references can be named in one message.

    Raises:
        MessageTooLargeError: they cannot.
    """
    if references > limits.REFERENCES_MAX:
        raise MessageTooLargeError(
            f"{what} has {references} references, and at most {limits.REFERENCES_MAX} can go "
            "along with one task, call or value; put parts of them with zray.put, and pass the "
            "references of these"
        )


# ---- picklers: the quick one, and ``by_value`` the one that sends code --------------------------


def in_band(value: Any, by_value: bool) -> bytes:
    """One pickle, with everything in it."""
    if by_value:
        from zray.runtime import code

        return code.dumps(value, PROTOCOL)
    data = _dumps(value, PROTOCOL)
    if _NAMES_MAIN in data:
        raise _NamesMain
    return data


def buffers_out_of_band(value: Any, by_value: bool) -> list[Piece]:
    """One pickle, or the pieces of a value whose buffers were not copied."""
    buffers: list[pickle.PickleBuffer] = []
    if by_value:
        from zray.runtime import code

        data = code.dumps(value, PROTOCOL, buffers.append)
    else:
        data = _dumps(value, PROTOCOL, buffer_callback=buffers.append)
        if _NAMES_MAIN in data:
            raise _NamesMain
    return assemble([data], [buffer.raw() for buffer in buffers]) if buffers else [data]


class _Sink:
    """The file that a pickler writes to."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], Any]) -> None:
        self.write = write


def out_of_band(value: Any, by_value: bool) -> list[Piece]:
    """The pieces of a value; they share the memory of its large parts."""
    pieces: list[Piece] = []
    buffers: list[pickle.PickleBuffer] = []
    if by_value:
        from zray.runtime import code

        pickler: type[pickle.Pickler] = code.Pickler
    else:
        pickler = pickle.Pickler
    pickler(_Sink(pieces.append), PROTOCOL, buffer_callback=buffers.append).dump(value)
    if not by_value and _pieces_name_main(pieces):
        raise _NamesMain
    if not buffers:
        return pieces
    return assemble(pieces, [buffer.raw() for buffer in buffers])


def _pieces_name_main(pieces: list[Piece]) -> bool:
    before: Piece = b""
    for piece in pieces:
        size = len(piece)
        is_payload = size >= PAYLOAD_BYTES and size in (
            int.from_bytes(before[-4:], "little"),
            int.from_bytes(before[-8:], "little"),
        )
        if not is_payload and _NAMES_MAIN in piece:
            return True
        before = piece
    return False
