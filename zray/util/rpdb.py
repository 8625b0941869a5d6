"""Breakpoints in tasks and actors: they wait until ``zray debug`` attaches to them.

Semantics: ``ray.util.rpdb`` of Ray 2.60. No port is open for that: on one machine the two talk over
a unix socket, for processes of one user only; from another one over an encrypted connection, for
the one key that the attaching process has left in the cluster's key-value table. One breakpoint at
a time waits in a process.
"""

from __future__ import annotations

import contextlib
import dis
import os
import pdb  # noqa: T100
import secrets
import select
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import msgspec

from zray.api import cluster
from zray.api.driver_account import own_machine
from zray.api.runtime_context import get_runtime_context
from zray.protocol.errors import cut_text
from zray.protocol.messages import BREAKPOINTS
from zray.runtime import session
from zray.util import kv
from zray.util.channels import Channel, LocalDoor, PeerGoneError, wait
from zray.util.debug_stream import ASK, TEXT, DebugStream
from zray.util.far_channels import FarDoor

DOORS = b"zray/breakpoint-doors/"  # keys of those who attach from other machines
LOOK_S = 0.25
TEXT_MAX = 256


class Breakpoint(msgspec.Struct, array_like=True, frozen=True):
    """One that waits, as the cluster's key-value table has it. ``error``: of a post-mortem."""

    task_id: bytes
    function: str
    actor_id: str
    job_id: str
    node: str
    worker_id: str
    pid: int
    file: str
    line: int
    since: float  # seconds of unix time
    member_id: bytes
    machine: str
    host: str
    public: bytes
    error: str = ""
    attached: bool = False


def set_trace(breakpoint_uuid: bytes | None = None) -> None:
    """Wait here, in a task, until somebody attaches with ``zray debug``; elsewhere as pdb's.

    As ``breakpoint()``, which needs no import. ``breakpoint_uuid`` is for programs written for Ray.
    """
    wait_at(sys._getframe(1))


def wait_at(frame: FrameType) -> None:
    """The same in another frame."""
    if getattr(session.current(), "task_inbox", None) is None:
        pdb.Pdb().set_trace(frame)
    else:
        _debugger().set_trace(frame)


def post_mortem(error: BaseException) -> None:
    """Wait until somebody has looked at where this was raised."""
    with contextlib.suppress(Exception):  # the error itself is what the program is to see
        debugger = _debugger(f"{type(error).__name__}: {error}")
        debugger.reset()
        traceback = error.__traceback__
        while traceback is not None and _is_ours(traceback.tb_frame) and traceback.tb_next:
            traceback = traceback.tb_next
        debugger.interaction(None, traceback)
        debugger.leave()


_lock = threading.Lock()
_at_work: dict[int, _Debugger] = {}  # by thread; one at most, whose lock that is


def _debugger(error: str = "") -> _Debugger:
    """A new one, once that of another thread is done; one of this thread is done by that."""
    thread = threading.get_ident()
    if (former := _at_work.get(thread)) is not None:
        sys.settrace(None)  # it was to stop somewhere in another coroutine
        former.leave()
    _lock.acquire()
    found = _at_work[thread] = _Debugger(error)
    return found


class _Debugger(pdb.Pdb):
    """pdb, at the terminal of whoever attaches."""

    def __init__(self, error: str = "") -> None:
        self._terminal = _Terminal(error)
        file: Any = self._terminal  # as much of one as pdb needs
        super().__init__(stdin=file, stdout=file, skip=["zray.*"], nosigint=True)

    def interaction(self, frame: FrameType | None, traceback: TracebackType | None) -> None:
        """Wait for commands."""
        place = frame
        if place is None and traceback is not None:
            last = traceback
            while last.tb_next is not None:
                last = last.tb_next
            place = last.tb_frame
        try:
            self._terminal.stop(place)
            super().interaction(frame, traceback)
        except BaseException:
            self.leave()
            raise
        self._terminal.go_on()

    def do_continue(self, arg: str) -> bool | None:
        """Until the next breakpoint of this debugger, or for good."""
        going = super().do_continue(arg)
        if not self.breaks:
            self.leave()
        return going

    do_c = do_cont = do_continue

    def do_quit(self, arg: str) -> bool | None:
        """Raise BdbQuit in the task."""
        ended = super().do_quit(arg)
        self.leave()
        return ended

    do_q = do_exit = do_quit

    def do_EOF(self, arg: str) -> bool | None:
        """Nothing: whoever leaves may come back."""
        return None

    def dispatch_return(self, frame: FrameType, arg: Any) -> Any:
        """A task that has returned is not followed into what called it, nor into the next one."""
        traced = super().dispatch_return(frame, arg)
        if _ends(frame) and (frame.f_back is None or _is_ours(frame.f_back)):
            self.clear_all_breaks()
            self.set_continue()
            self.leave()
            return None
        return traced

    def leave(self) -> None:
        """Nobody is attached any more, and the next breakpoint may wait."""
        if self._terminal.close():
            _at_work.clear()
            _lock.release()


def _ends(frame: FrameType) -> bool:
    """Whether it returns for good: a generator or coroutine may go on later."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN")


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("zray.")


class _Terminal:
    """Its stdin and stdout. Waits for somebody to attach, and again when that one has left."""

    encoding = "utf-8"

    def __init__(self, error: str) -> None:
        self._error = error
        self._frame: FrameType | None = None
        self._since = 0.0
        self._stream: DebugStream | None = None
        self._key = b""
        self._closed = False

    def stop(self, frame: FrameType | None) -> None:
        """The task has stopped."""
        self._frame, self._since = frame, time.time()
        if self._stream is None:
            self._attach()
        else:
            self._tell(self._account(b"", b"", attached=True))

    def go_on(self) -> None:
        """It goes on."""
        if self._key:
            kv.delete(self._key)
            self._key = b""

    def close(self) -> bool:
        """Hang up; whether that was still to do."""
        if self._closed:
            return False
        self._closed = True
        try:
            self.go_on()
        finally:
            if self._stream is not None:
                self._stream.close()
                self._stream = None
        return True

    # ---- as a file -------------------------------------------------------------------------

    def write(self, text: str) -> int:
        """To whoever is attached."""
        if self._stream is not None:
            with contextlib.suppress(PeerGoneError):
                self._stream.send(TEXT, text)
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def readline(self) -> str:
        """The next command."""
        while True:
            if self._stream is None:
                self._attach(again=True)
            assert self._stream is not None
            try:
                self._stream.send(ASK, "")
                while (frame := self._stream.receive()) is None:
                    wait([(self._stream.channel, select.POLLIN)], time.monotonic() + 3600)
                return f"{frame[1]}\n"
            except TimeoutError:
                continue
            except PeerGoneError:
                self._stream.close()
                self._stream = None

    # ---- who attaches ----------------------------------------------------------------------

    def _attach(self, again: bool = False) -> None:
        member_id = secrets.token_bytes(16)
        door, far = LocalDoor(member_id), FarDoor(DOORS, member_id, 0, cluster.own_address())
        try:
            account = self._account(member_id, far.public, attached=False)
            self._tell(account)
            _say(account)
            channel: Channel | None = None
            while channel is None:
                channel = _come(door, far)
            self._stream = DebugStream(channel)
            self._tell(self._account(b"", b"", attached=True))
            self.write(f"attached to {account.function}, pid {account.pid}, node {account.node}\n")
            if account.error:
                self.write(f"it has raised {account.error}\n")
            if again:
                self.write(f"> {account.file}({account.line})\n(Pdb) ")
        finally:
            door.close()
            far.close()

    def _tell(self, account: Breakpoint) -> None:
        self._key = BREAKPOINTS + account.task_id
        kv.put(self._key, msgspec.msgpack.encode(account))

    def _account(self, member_id: bytes, public: bytes, *, attached: bool) -> Breakpoint:
        context, frame = get_runtime_context(), self._frame
        worker_id = context.get_worker_id()
        task_id = bytes.fromhex(context.get_task_id() or worker_id)
        return Breakpoint(
            task_id,
            cut_text(context.get_task_name() or "a thread of a worker", TEXT_MAX),
            context.get_actor_id() or "",
            context.get_job_id(),
            context.get_node_name(),
            *(worker_id, os.getpid()),
            cut_text(frame.f_code.co_filename if frame is not None else "", TEXT_MAX),
            frame.f_lineno if frame is not None else 0,
            self._since,
            member_id,
            own_machine(),
            cluster.own_address(),
            public,
            cut_text(self._error, TEXT_MAX),
            attached,
        )


def _come(door: LocalDoor, far: FarDoor) -> Channel | None:
    """The next one who attaches, if anybody comes within a moment."""
    found = door.accept(LOOK_S)
    if found is not None:
        return found[2]
    return next((channel for _, channel in far.admit()), None) if far.public else None


def _say(account: Breakpoint) -> None:
    how = f"has raised {account.error}, and waits" if account.error else "waits in a breakpoint"
    print(
        f"{account.function} {how} at {account.file}:{account.line}; to attach: "
        f"zray debug {account.task_id.hex()}",
        file=sys.stderr,
        flush=True,
    )
