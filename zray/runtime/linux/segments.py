"""Shared memory segments: making, sending, mapping and copying them, and views of their content.

Owns descriptors and mappings. It must never decide which space is free: that is for the arena of
the process that writes, and the raylet's object store.

A segment is a memfd: it has no name, and its memory is gone with the last process that has it open
or mapped, however that process ends. Its writer maps it for writing first; once it is protected,
no further mapping can be writable, and write(2) fails too. Readers refuse a segment that is not.
"""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import socket
import struct
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from zray.runtime.buffers import Piece, copy

_SEAL_FUTURE_WRITE = 0x0010  # F_SEAL_FUTURE_WRITE, which Python 3.11 does not name
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_PAGE_BYTES = mmap.PAGESIZE
_FD = struct.Struct("i")
# A piece of this size or more goes to untouched pages by write(2), which neither faults nor
# clears them; for a smaller one the call costs as much.
_COLD_WRITE_BYTES = 64 << 10


def create(size: int) -> int:
    """The descriptor of a new segment of ``size`` bytes, which can neither grow nor shrink.

    Raises:
        OSError: there is no memory or descriptor for it.
    """
    fd = os.memfd_create("zray-segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def protect(fd: int) -> None:
    """Let nobody map the segment for writing from now on; its writer's mapping stays.

    Any process that has the descriptor may do it, again too. It must be done before another
    process than the writer and the raylet is given the descriptor. Until then the writer may fill
    untouched pages by write(2), which is faster; it notices when it cannot any more.
    """
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS | _SEAL_FUTURE_WRITE)


def is_protected(fd: int) -> bool:
    """Whether nobody can map the segment for writing any more."""
    wanted = _SIZE_SEALS | _SEAL_FUTURE_WRITE
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & wanted == wanted


# ---- sending -------------------------------------------------------------------------------


def send(channel: socket.socket, tag: bytes, fd: int) -> None:
    """Send a descriptor with a tag (not empty) that says what it is.

    ``channel`` is a unix socket that keeps messages apart (SOCK_SEQPACKET): all goes or nothing.

    Raises:
        BlockingIOError: the socket is non-blocking and full.
        OSError: the peer is gone.
    """
    socket.send_fds(channel, [tag], [fd])


def receive(channel: socket.socket, bytes_max: int, flags: int = 0) -> tuple[bytes, int | None]:
    """The next message, and the descriptor sent with it, which is the caller's to close.

    ``flags``: as recvmsg has them.

    Raises:
        EOFError: the peer is gone.
        ValueError: the message is longer, or has more than one descriptor.
        BlockingIOError: the socket is non-blocking and has nothing.
    """
    room = socket.CMSG_SPACE(_FD.size)
    # Not socket.recv_fds, which drops its flags in Python 3.11: exec would inherit it.
    data, ancillary, got, _ = channel.recvmsg(bytes_max, room, flags | socket.MSG_CMSG_CLOEXEC)
    fds = [
        fd
        for level, kind, raw in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in _FD.iter_unpack(raw[: len(raw) // _FD.size * _FD.size])
    ]
    if not data and not fds:
        raise EOFError("the peer closed the socket")
    if len(fds) > 1 or got & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        for fd in fds:
            os.close(fd)
        raise ValueError("a message that is too long or has several descriptors was refused")
    return data, fds[0] if fds else None


# ---- mapping -------------------------------------------------------------------------------


@functools.cache
def _libc() -> Any:
    # Python's mmap does not tell the address of a read-only mapping, and unmaps on close even
    # what is still in use. Imported late: processes without large objects do without ctypes.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


class _Memory:
    """Mapped memory; it is unmapped with the last reference to this object."""

    __slots__ = ("_address", "_kind", "_munmap", "_size")

    def __init__(self, fd: int, size: int, writable: bool) -> None:
        import ctypes

        self._address: int | None = None
        libc = _libc()
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = libc.mmap(None, size, protection, mmap.MAP_SHARED, fd, 0)
        if address is None or address == ctypes.c_void_p(-1).value:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot map {size} bytes: {os.strerror(number)}")
        self._address = address
        self._size = size
        self._kind: Any = ctypes.c_char * size
        self._munmap = libc.munmap

    def array(self) -> Any:
        """A new array over all of it, which does not keep it mapped."""
        return self._kind.from_address(self._address)

    def __del__(self) -> None:
        if self._address is not None:
            self._munmap(self._address, self._size)


class Mapping:
    """A segment mapped into this process. Views keep it mapped after ``close``.

    Args:
        fd: of the segment; the mapping takes it over and closes it, also if it cannot be mapped.
        writable: True for the process that made it; others can only map what is protected.

    Raises:
        OSError: it cannot be mapped.
        ValueError: it is to be read, but others could still change it.
    """

    def __init__(self, fd: int, writable: bool = False) -> None:
        try:
            if not writable and not is_protected(fd):
                raise ValueError("the segment is not protected, so it was not mapped for reading")
            self.size = os.fstat(fd).st_size
            self._memory: _Memory | None = _Memory(fd, self.size, writable)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd
        self._writable = writable
        self._touched = 0  # bytes below it were written before, as far as this process knows

    def write(self, offset: int, pieces: Iterable[Piece]) -> None:
        """Copy ``pieces``, one after the other, to ``offset``: the only copy that is made.

        Raises:
            ValueError: they go past the end, or the segment is not mapped for writing.
            OSError: there is no memory for them.
        """
        memory = self._mapped()  # a reference, so that close() does not unmap it under the copy
        if not self._writable:
            raise ValueError("the segment is mapped for reading only")
        target = memoryview(memory.array()).cast("B")
        at = offset
        for piece in pieces:
            end = at + len(piece)
            if at < 0 or end > self.size:
                raise ValueError(
                    f"bytes {at} to {end} are not within a segment of {self.size} bytes"
                )
            cold = max(at, -(-self._touched // _PAGE_BYTES) * _PAGE_BYTES)
            if self.fd >= 0 and end - cold >= _COLD_WRITE_BYTES:
                source = memoryview(piece)
                copy(source[: cold - at], target, at)
                done = self._write_cold(source[cold - at :], cold)
                copy(source[done - at :], target, done)
            else:
                copy(piece, target, at)
            at = end
        self._touched = max(self._touched, at)

    def _write_cold(self, source: memoryview, at: int) -> int:
        """Fill untouched pages by write(2). Returns how far: not to the end once protected."""
        done = 0
        while done < len(source):
            try:
                done += os.pwrite(self.fd, source[done:], at + done)
            except PermissionError:
                break
        return at + done

    def view(self, offset: int, size: int, released: Callable[[], None]) -> memoryview:
        """A read-only view of ``size`` bytes.

        ``released`` is called once, when the view and all that was made of its buffer are gone: its
        slices, the arrays on it and their slices. It is called in whichever thread drops the last
        of them, within the garbage collector too: it may do no more than append to a deque. It is
        not called at the end of the process.

        Raises:
            ValueError: it goes past the end, or the mapping is closed.
        """
        memory = self._mapped()
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(
                f"{size} bytes at {offset} are not within a segment of {self.size} bytes"
            )
        # Whatever is made of a buffer refers to the object that exports it, so the exporter goes
        # last. One of its own for each view, of one type: making a type costs more than the rest.
        exporter = memory.array()
        weakref.finalize(exporter, _end_view, memory, released).atexit = False
        return memoryview(exporter).cast("B")[offset : offset + size].toreadonly()

    def close_descriptor(self) -> None:
        """Close the descriptor alone, where it is not needed any more: the memory stays mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Close the descriptor, and unmap once no view is left. May be called again."""
        self.close_descriptor()
        self._memory = None

    def _mapped(self) -> _Memory:
        if self._memory is None:
            raise ValueError("the mapping of the segment is closed")
        return self._memory


def _end_view(_memory: _Memory, released: Callable[[], None]) -> None:
    # The memory is an argument so that it stays mapped until here.
    released()
