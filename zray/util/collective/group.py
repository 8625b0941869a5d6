"""A group's operations, made of transfers between pairs of its members.

Large values go round in rings, so each member sends and receives each byte about twice however many
members there are; small ones go through trees. What is written beside the values themselves is at
most two blocks of ``BLOCK_BYTES``, but for ``reducescatter``, which has two parts.
"""

from __future__ import annotations

import select
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from zray.errors import CollectiveError
from zray.util.channels import Channel, PeerGoneError, wait
from zray.util.collective import tensors
from zray.util.collective.tensors import Flat, Target, view
from zray.util.collective.types import ReduceOp

BLOCK_BYTES = 256 << 10  # what is reduced at a time stays in the CPU's cache
TREE_BYTES = 32 << 10  # below this the number of steps counts, and not that of bytes
SILENT_S = 1800.0  # as torch's gloo: a member that lives and does not come ends a call then

TEXT_BYTES = 32  # of an operation with what belongs to it, and of a kind of elements

_HEADER = struct.Struct(
    f"<{TEXT_BYTES}sIQ{TEXT_BYTES}s"
)  # operation, number of the call, bytes, kind of the elements
_NONE = memoryview(b"")
Reach = Callable[[int, float], Channel]


class Group:
    """This process's membership. One call at a time; all members make the same calls in one order.

    ``reach``: the connection to a member, by rank, until a deadline of the monotonic clock.
    ``leave`` closes all connections.
    """

    def __init__(
        self, name: str, rank: int, world_size: int, reach: Reach, leave: Callable[[], None]
    ) -> None:
        self.name = name
        self.rank = rank
        self.world_size = world_size
        self._reach = reach
        self._leave = leave
        self._lock = threading.Lock()
        self._calls = 0
        self._op = ""
        self._broken = ""

    # ---- operations ------------------------------------------------------------------------

    def barrier(self) -> None:
        """Return when all members have called it."""
        with self._call("barrier"):
            step = 1
            while step < self.world_size:
                self._swap(
                    (self.rank + step) % self.world_size,
                    _NONE,
                    (self.rank - step) % self.world_size,
                    _NONE,
                    "",
                )
                step *= 2

    def allreduce(self, tensor: Any, op: ReduceOp) -> None:
        """Each member's tensor becomes that of all, reduced."""
        fold = tensors.fold_of(op)
        target = Target(tensor, reduced=True)
        with self._call(_named("allreduce", op)):
            flat = target.flat
            if flat.nbytes <= TREE_BYTES or flat.size < self.world_size:
                self._tree_reduce(flat, 0, fold)
                self._tree_broadcast(flat, 0)
            else:
                self._ring_allreduce(flat, fold)
            target.store()

    def reduce(self, tensor: Any, root: int, op: ReduceOp) -> None:
        """The root's tensor becomes that of all, reduced; the others' stay as they are."""
        fold = tensors.fold_of(op)
        if self.rank == root:
            target = Target(tensor, reduced=True)
            with self._call(_named("reduce", op, f" to {root}")):
                self._chain_reduce(target.flat, root, fold)
                target.store()
        else:
            flat = tensors.read(tensor, reduced=True)
            with self._call(_named("reduce", op, f" to {root}")):
                self._chain_reduce(flat, root, fold)

    def broadcast(self, tensor: Any, root: int) -> None:
        """The others' tensors become the root's."""
        if self.rank == root:
            flat = tensors.read(tensor)
            with self._call(f"broadcast from {root}"):
                self._spread(flat, root)
        else:
            target = Target(tensor)
            with self._call(f"broadcast from {root}"):
                self._spread(target.flat, root)
                target.store()

    def allgather(self, outputs: list[Any], tensor: Any) -> None:
        """``outputs`` become the members' tensors, in the order of their ranks."""
        flat = tensors.read(tensor)
        targets = [Target(one) for one in outputs]
        for one in targets:
            _same(one.flat, flat, "each of tensor_list", "the tensor")
        with self._call("allgather"):
            targets[self.rank].flat[...] = flat
            right, left = self._neighbours()
            for step in range(self.world_size - 1):
                out = targets[(self.rank - step) % self.world_size].flat
                into = targets[(self.rank - step - 1) % self.world_size].flat
                self._swap(right, view(out), left, view(into), out.dtype.str)
            for one in targets:
                one.store()

    def reducescatter(self, output: Any, inputs: list[Any], op: ReduceOp) -> None:
        """``output`` becomes what all have as input of this rank, reduced; inputs stay."""
        fold = tensors.fold_of(op)
        target = Target(output, reduced=True)
        parts = [tensors.read(one, reduced=True) for one in inputs]
        for part in parts:
            _same(part, target.flat, "each of tensor_list", "the tensor")
        with self._call(_named("reducescatter", op)):
            right, left = self._neighbours()
            partial = parts[(self.rank - 1) % self.world_size].copy()
            coming = tensors.empty_like(partial, partial.size)
            for step in range(self.world_size - 1):
                self._swap(right, view(partial), left, view(coming), partial.dtype.str)
                fold(coming, parts[(self.rank - step - 2) % self.world_size], out=coming)
                partial, coming = coming, partial
            target.flat[...] = partial
            target.store()

    def send(self, tensor: Any, to: int) -> None:
        """To the member that calls ``recv`` for it."""
        flat = tensors.read(tensor)
        with self._call("send"):
            self._greet("send", to, flat.nbytes, None, 0, flat.dtype.str, counted=False)
            self._pump(to, view(flat), None, _NONE)

    def recv(self, tensor: Any, source: int) -> None:
        """What that member sends with ``send``."""
        target = Target(tensor)
        with self._call("recv"):
            flat = target.flat
            self._greet("send", None, 0, source, flat.nbytes, flat.dtype.str, counted=False)
            self._pump(None, _NONE, source, view(flat))
            target.store()

    def meet(self, record: bytes) -> list[bytes]:
        """Each member's record, by rank; all are of one size. Ends when all have come."""
        world, size = self.world_size, len(record)
        known = np.zeros((world, size), np.uint8)  # those of this rank, the one before it, ...
        known[0] = np.frombuffer(record, np.uint8)
        with self._call("init"):
            step = 1
            while step < world:
                out = known[: min(step, world - step)].reshape(-1)
                into = known[step : step + len(out) // size].reshape(-1)
                to, source = (self.rank + step) % world, (self.rank - step) % world
                self._swap(to, view(out), source, view(into), "")
                step *= 2
        return [known[(self.rank - rank) % world].tobytes() for rank in range(world)]

    def destroy(self) -> None:
        """Leave; the others' next calls that need this member fail."""
        self._broken = self._broken or "it was destroyed here"
        self._leave()

    # ---- how they are made -----------------------------------------------------------------

    def _neighbours(self) -> tuple[int, int]:
        return (self.rank + 1) % self.world_size, (self.rank - 1) % self.world_size

    def _ring_allreduce(self, flat: Flat, fold: Any) -> None:
        size, world = flat.size, self.world_size
        parts = [flat[size * n // world : size * (n + 1) // world] for n in range(world)]
        right, left = self._neighbours()
        for step in range(world - 1):
            out = parts[(self.rank - step) % world]
            into = parts[(self.rank - step - 1) % world]
            self._greet(self._op, right, out.nbytes, left, into.nbytes, flat.dtype.str)
            self._fold_in(right, out, left, into, fold)
        for step in range(world - 1):
            out = parts[(self.rank - step + 1) % world]
            into = parts[(self.rank - step) % world]
            self._swap(right, view(out), left, view(into), flat.dtype.str)

    def _fold_in(self, to: int, out: Flat, source: int, into: Flat, fold: Any) -> None:
        """Send ``out``, and reduce what comes into ``into``, a block at a time."""
        block = max(1, BLOCK_BYTES // max(1, into.itemsize))
        room = tensors.empty_like(into, min(block, into.size))
        for start in range(0, max(out.size, into.size), block):
            mine, theirs = out[start : start + block], into[start : start + block]
            coming = room[: theirs.size]
            self._pump(to, view(mine), source, view(coming))
            fold(theirs, coming, out=theirs)

    def _chain_reduce(self, flat: Flat, root: int, fold: Any) -> None:
        """Each reduces what the one before it has sent with its own, and sends that on."""
        world = self.world_size
        place = (self.rank - root) % world
        if world == 1:
            return
        source = (self.rank + 1) % world if place < world - 1 else None
        to = (self.rank - 1) % world if place else None
        self._greet(self._op, to, flat.nbytes, source, flat.nbytes, flat.dtype.str)
        block = max(1, BLOCK_BYTES // flat.itemsize)
        rooms = [tensors.empty_like(flat, min(block, flat.size)) for _ in range(2)]
        ready = flat[:0]
        for number, start in enumerate(range(0, flat.size, block)):
            own = flat[start : start + block]
            coming = rooms[number % 2][: own.size] if source is not None else own
            into = view(coming) if source is not None else _NONE
            self._pump(to, view(ready) if to is not None else _NONE, source, into)
            if source is not None:
                fold(coming, own, out=own if to is None else coming)
            ready = coming
        if to is not None:
            self._pump(to, view(ready), None, _NONE)

    def _spread(self, flat: Flat, root: int) -> None:
        if flat.nbytes <= TREE_BYTES:
            self._tree_broadcast(flat, root)
            return
        world = self.world_size
        place = (self.rank - root) % world
        if world == 1:
            return
        source = (self.rank - 1) % world if place else None
        to = (self.rank + 1) % world if place < world - 1 else None
        self._greet(self._op, to, flat.nbytes, source, flat.nbytes, flat.dtype.str)
        whole = view(flat)
        ready = whole if source is None else _NONE
        for start in range(0, len(whole) if source is not None else 0, BLOCK_BYTES):
            coming = whole[start : start + BLOCK_BYTES]
            self._pump(to, ready if to is not None else _NONE, source, coming)
            ready = coming
        if to is not None:
            self._pump(to, ready, None, _NONE)

    def _tree_broadcast(self, flat: Flat, root: int) -> None:
        """Who has it tells one that has not: twice as many in each step."""
        place = (self.rank - root) % self.world_size
        step = 1
        while step < self.world_size:
            if place < step and place + step < self.world_size:
                self._give((place + step + root) % self.world_size, flat)
            elif step <= place < 2 * step:
                self._take((place - step + root) % self.world_size, flat)
            step *= 2

    def _tree_reduce(self, flat: Flat, root: int, fold: Any) -> None:
        """The same the other way round."""
        place = (self.rank - root) % self.world_size
        step = 1
        while step < self.world_size:
            step *= 2
        coming = tensors.empty_like(flat, flat.size)
        while step > 1:
            step //= 2
            if place < step and place + step < self.world_size:
                self._take((place + step + root) % self.world_size, coming)
                fold(flat, coming, out=flat)
            elif step <= place < 2 * step:
                self._give((place - step + root) % self.world_size, flat)

    def _give(self, to: int, flat: Flat) -> None:
        self._greet(self._op, to, flat.nbytes, None, 0, flat.dtype.str)
        self._pump(to, view(flat), None, _NONE)

    def _take(self, source: int, flat: Flat) -> None:
        self._greet(self._op, None, 0, source, flat.nbytes, flat.dtype.str)
        self._pump(None, _NONE, source, view(flat))

    # ---- transfers -------------------------------------------------------------------------

    def _call(self, op: str) -> _Call:
        return _Call(self, op)

    def _swap(self, to: int, out: memoryview, source: int, into: memoryview, kind: str) -> None:
        self._greet(self._op, to, len(out), source, len(into), kind)
        self._pump(to, out, source, into)

    def _greet(
        self,
        op: str,
        to: int | None,
        out_bytes: int,
        source: int | None,
        in_bytes: int,
        kind: str,
        counted: bool = True,
    ) -> None:
        """Say what is about to be sent, and hear whether what comes is what is expected."""
        number = self._calls if counted else 0
        what, elements = _text(op), _text(kind)
        said = _HEADER.pack(what, number, out_bytes, elements)
        heard = bytearray(_HEADER.size if source is not None else 0)
        self._pump(to, memoryview(said) if to is not None else _NONE, source, memoryview(heard))
        if source is None:
            return
        their_op, their_number, size, their_kind = _HEADER.unpack(heard)
        if (their_op, their_number, size, their_kind) != (what, number, in_bytes, elements):
            raise CollectiveError(
                f"rank {source} of the group {self.name!r} is at {_told(their_op)} (call "
                f"{their_number}) with {size} bytes of {_told(their_kind) or 'nothing'}, and this "
                f"one, rank {self.rank}, at {op} (call {number}) with {in_bytes} bytes of "
                f"{kind or 'nothing'}; all members must make the same calls, in the same order, "
                "with tensors of the same size and kind"
            )

    def _pump(self, to: int | None, out: memoryview, source: int | None, into: memoryview) -> None:
        """Send and receive so many bytes, both at the same time."""
        if not out and not into:
            return
        deadline = time.monotonic() + SILENT_S
        peer = to if out else source
        try:
            sends = self._reach(to, deadline) if to is not None and out else None
            peer = source if into else to
            receives = self._reach(source, deadline) if source is not None and into else None
            while out or into:
                moved = 0
                if sends is not None and out:
                    peer = to
                    moved = sends.send(out)
                    out = out[moved:]
                if receives is not None and into:
                    peer = source
                    count = receives.receive(into)
                    into = into[count:]
                    moved += count
                if not moved:
                    waits = [(sends, select.POLLOUT)] if sends is not None and out else []
                    if receives is not None and into:
                        waits.append((receives, select.POLLIN))
                    wait(waits, deadline)
                elif time.monotonic() + SILENT_S > deadline + 60:
                    deadline = time.monotonic() + SILENT_S
        except PeerGoneError:
            raise CollectiveError(
                f"rank {peer} of the group {self.name!r} has closed its connection during "
                f"{self._op}: its process has ended, has left the group, or a call of it failed; "
                "the result here is undefined. Destroy the group in all members and make it again"
            ) from None
        except TimeoutError:
            raise CollectiveError(
                f"rank {to if out else source} of the group {self.name!r} is there, but has not "
                f"made its part of {self._op} in {SILENT_S:.0f} s; see `zray stack` for where it is"
            ) from None

    def _begin(self, op: str) -> None:
        self._lock.acquire()
        if self._broken:
            self._lock.release()
            raise CollectiveError(
                f"the group {self.name!r} cannot be used any more: {self._broken}; destroy it in "
                "all members and make it again"
            )
        if op not in ("send", "recv"):
            self._calls += 1
        self._op = op

    def _end(self, error: BaseException | None) -> None:
        if error is not None and not self._broken:
            # What others have sent is left by half in the connections; hanging up tells them.
            self._broken = f"{self._op} has failed here: {error}"
            self._leave()
        self._lock.release()


class _Call:
    """One call: an error in it is the end of the group."""

    def __init__(self, group: Group, op: str) -> None:
        self._group = group
        self._op = op

    def __enter__(self) -> None:
        self._group._begin(self._op)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._group._end(error)


def _same(one: Flat, other: Flat, what: str, whose: str) -> None:
    if one.size != other.size or one.dtype != other.dtype:
        raise ValueError(
            f"{what} must be like {whose}: {other.size} elements of {other.dtype}, got {one.size} "
            f"of {one.dtype}"
        )


def _named(call: str, op: ReduceOp, place: str = "") -> str:
    """A call by what all members must pass alike."""
    return f"{call}{'' if op is ReduceOp.SUM else f' {op.name}'}{place}"


def _text(text: str) -> bytes:
    return text.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0")


def _told(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "replace")
