"""What a raylet's store has of memory and disk: its processes' segments, its own, spilled files.

Owns descriptors, mappings and the thread that writes files; decides nothing about objects.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from zray import limits
from zray.core.arena import Arena, NewSegment, Region
from zray.runtime.disk import Disk, Done, OwnDirectory
from zray.runtime.linux import segments
from zray.runtime.linux.segments import Mapping


class NodeMemory:
    """``node_id``: as whose the raylet's own segments are known."""

    def __init__(self, node_id: bytes, mark_bytes: int) -> None:
        self._node_id = node_id
        pooled = min(limits.POOLED_SEGMENT_BYTES, mark_bytes // 16)
        self.arena = Arena(max(limits.STORE_BYTES_MIN // 4, pooled))
        self._fds: dict[tuple[bytes, int], int] = {}
        self._maps: dict[tuple[bytes, int], Mapping] = {}

    def add(self, owner: bytes, number: int, fd: int) -> None:
        """A process's segment; its descriptor is taken over."""
        self._fds[owner, number] = fd

    def descriptor(self, owner: bytes, number: int) -> int:
        """The segment's descriptor, to be given to a reader: nobody can write to it with that."""
        fd = self._fds[owner, number]
        segments.protect(fd)
        return fd

    def mapping(self, owner: bytes, number: int) -> Mapping:
        mapping = self._maps.get((owner, number))
        if mapping is None:
            mapping = self._maps[owner, number] = Mapping(os.dup(self._fds[owner, number]))
            mapping.close_descriptor()
        return mapping

    def allocate(self, size: int, added: Callable[[int, int], None]) -> Region:
        """Room in the raylet's own segments; ``added`` gets number and size of each new one.

        Raises:
            OSError: there is none.
        """
        while isinstance(region := self.arena.allocate(size), NewSegment):
            fd = segments.create(region.size)
            try:
                mapping = Mapping(os.dup(fd), writable=True)
            except BaseException:
                os.close(fd)
                raise
            self._fds[self._node_id, region.number] = fd
            self._maps[self._node_id, region.number] = mapping
            added(region.number, region.size)
            self.arena.add(region.number, region.size)
        return region

    def write(self, region: Region, offset: int, data: bytes) -> None:
        """Write to an own region."""
        self._maps[self._node_id, region.segment].write(region.offset + offset, [data])

    def drop(self, owner: bytes, number: int) -> None:
        """Nothing in the segment is of use any more."""
        os.close(self._fds.pop((owner, number)))
        mapping = self._maps.pop((owner, number), None)
        if mapping is not None:
            mapping.close()

    def close(self) -> None:
        for mapping in self._maps.values():
            mapping.close()
        for fd in self._fds.values():
            os.close(fd)


class SpillFiles:
    """Files of objects, written and read by a thread; what is called at the end is so by ``disk``'s
    ``finish``."""

    def __init__(self, directory: OwnDirectory) -> None:
        self.disk = Disk()
        self._directory = directory

    def spill(
        self,
        name: str,
        data: memoryview,
        done: Callable[[str], None],
        failed: Callable[[str], None],
    ) -> None:
        """Write ``data``: ``done`` gets the path, or ``failed`` the reason."""

        def job() -> Done:
            try:
                path = str(self._directory.write(name, data))
            except OSError as error:
                reason = str(error)
                return lambda: failed(reason)
            return lambda: done(path)

        self.disk.do(job)

    def restore(
        self, path: str, mapping: Mapping, region: Region, done: Callable[[bool], None]
    ) -> None:
        """Read a file into ``region``: ``done`` learns whether that went well."""

        def job() -> Done:
            try:
                at = region.offset
                with open(path, "rb", buffering=0) as file:
                    while data := file.read(limits.FILE_BYTES_MAX):
                        mapping.write(at, [data])
                        at += len(data)
                whole = at == region.offset + region.size
            except (OSError, ValueError):
                whole = False
            return lambda: done(whole)

        self.disk.do(job)

    def delete(self, path: str) -> None:
        def job() -> Done:
            with contextlib.suppress(OSError):
                os.unlink(path)
            return _nothing

        self.disk.do(job)

    def close(self) -> None:
        """Wait for the thread, and remove every file."""
        self.disk.close()
        self._directory.remove()


def _nothing() -> None:
    pass
