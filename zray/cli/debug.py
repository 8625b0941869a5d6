"""``zray debug``: which breakpoints wait, and a terminal for one of them.

It is a driver for as long as that takes; it runs and unpickles nothing.
"""

from __future__ import annotations

import os
import secrets
import select
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

import zray
from zray.api.driver_account import own_machine
from zray.cli.reporting import harmless, show
from zray.core.causes import plain
from zray.errors import ZrayError
from zray.protocol.messages import BREAKPOINTS
from zray.util import kv
from zray.util.channels import Channel, LocalDoor, PeerGoneError, wait
from zray.util.debug_stream import LINE, TEXT, DebugStream
from zray.util.far_channels import FarDoor
from zray.util.node_address import get_node_ip_address
from zray.util.rpdb import DOORS, Breakpoint
from zray.util.state import get_worker

ATTACH_S = 10.0
LOOK_S = 0.02
TOLD_S = 5.0  # by then the head knows of a worker


def run(addresses: Sequence[str], which: str | None, *, as_json: bool) -> int:
    """List what waits, or attach to one; returns the exit code."""
    address = ",".join(addresses) if addresses else os.environ.get("ZRAY_ADDRESS") or "auto"
    try:
        zray.init(address, log_to_driver=False)
        try:
            found = _waiting(address)
            if which is None:
                _list(found, as_json=as_json)
                return 0
            return _attach(_chosen(found, which))
        finally:
            zray.shutdown()
    except BrokenPipeError:  # who reads it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ZrayError, OSError, ValueError) as error:
        if as_json:
            show({"error": {"code": getattr(error, "code", ""), "message": str(error)}})
        else:
            print(f"zray: {plain(str(error))}", file=sys.stderr)
        return 2


def _waiting(address: str) -> list[Breakpoint]:
    """Those of workers that live, the one that has waited longest first."""
    found: list[Breakpoint] = []
    for key in kv.keys(BREAKPOINTS):
        raw = kv.get(key)
        if raw is None:
            continue
        one = msgspec.msgpack.decode(raw, type=Breakpoint)
        worker = get_worker(one.worker_id, address)
        known = worker is not None or time.time() < one.since + TOLD_S
        if not known or (worker is not None and not worker.is_alive):
            kv.delete(key)  # it was killed while it waited
        else:
            found.append(one)
    return sorted(found, key=lambda one: one.since)


def _list(found: list[Breakpoint], *, as_json: bool) -> None:
    now = time.time()
    if as_json:
        show({"breakpoints": [_described(one) for one in found]})
        return
    if not found:
        print("no breakpoint waits")
        return
    head: tuple[str, ...] = ("#", "function", "where", "node", "pid", "waits", "task", "")
    rows: list[tuple[str, ...]] = [head]
    for number, one in enumerate(found):
        state = "attached" if one.attached else "raised" if one.error else ""
        where = f"{os.path.basename(one.file)}:{one.line}"
        waits = f"{max(0.0, now - one.since):.0f} s"
        row: tuple[str, ...] = (str(number), one.function, where, one.node, str(one.pid), waits)
        rows.append((*row, one.task_id.hex(), state))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        print(harmless(line.rstrip()))
    print("\nto attach: zray debug NUMBER, or the task's id or pid", flush=True)


def _described(one: Breakpoint) -> dict[str, Any]:
    return {
        "task_id": one.task_id.hex(),
        "function": one.function,
        "actor_id": one.actor_id,
        "job_id": one.job_id,
        "node": one.node,
        "worker_id": one.worker_id,
        "pid": one.pid,
        "file": one.file,
        "line": one.line,
        "since": one.since,
        "error": one.error,
        "attached": one.attached,
    }


def _chosen(found: list[Breakpoint], which: str) -> Breakpoint:
    """The one of that number, id or pid.

    Raises:
        ValueError: there is none, or several.
    """
    if which.isdecimal() and int(which) < len(found):
        return found[int(which)]
    word = which.lower()
    fits = [one for one in found if str(one.pid) == which or one.task_id.hex().startswith(word)]
    if len(fits) != 1:
        many = f"{len(fits)} breakpoints are" if fits else "no breakpoint is"
        raise ValueError(f"{many} of {which!r}; see zray debug for what waits")
    return fits[0]


def _attach(one: Breakpoint) -> int:
    if sys.stdout.name == os.devnull:  # which is there in its place
        raise ValueError(
            "to attach needs somewhere to show what is said; standard output is closed"
        )
    if one.attached:
        raise ValueError(f"somebody is attached to {one.function} (pid {one.pid}) already")
    stream = DebugStream(_connected(one))
    try:
        return _serve(stream, one)
    finally:
        stream.close()


def _connected(one: Breakpoint) -> Channel:
    """A connection to it.

    Raises:
        ValueError: there is no way to it, or it does not answer.
    """
    caller = secrets.token_bytes(16)
    deadline = time.monotonic() + ATTACH_S
    if one.machine and one.machine == own_machine():
        door = LocalDoor(caller)
        try:
            local = door.connect(one.member_id, 0)
        finally:
            door.close()
        if local is None:
            raise ValueError(
                f"pid {one.pid} cannot be reached: it has ended, goes on, or is another user's"
            )
        return local
    far = FarDoor(DOORS, caller, 0, get_node_ip_address())
    try:
        if not (one.public and far.public):
            raise ValueError(
                f"{one.function} waits on another machine, node {one.node}, that is not reached "
                "from here; run zray debug there"
            )
        while time.monotonic() < deadline:
            channel = far.connect(one.member_id, one.public, one.host)
            if channel is not None:
                return channel
            time.sleep(LOOK_S)
    finally:
        far.close()
    raise ValueError(f"pid {one.pid} on node {one.node} has not answered in {ATTACH_S:.0f} s")


def _serve(stream: DebugStream, one: Breakpoint) -> int:
    """Show what it says, and say what is typed, until one of the two leaves."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  # input() edits with it
    prompt = ""
    try:
        while True:
            frame = stream.receive()
            if frame is None:
                wait([(stream.channel, select.POLLIN)], time.monotonic() + 3600)
                continue
            kind, text = frame
            if kind == TEXT:
                lines, _, prompt = (prompt + text).rpartition("\n")
                if lines:
                    print(harmless(lines), flush=True)
            else:
                stream.send(LINE, _typed(harmless(prompt)))
                prompt = ""
    except PeerGoneError:
        if prompt:
            print(harmless(prompt))
        print(f"{one.function} goes on")
        return 0
    except (EOFError, KeyboardInterrupt, TimeoutError):
        print(f"\nleft; {one.function} goes on waiting, if it has not gone on")
        return 0


def _typed(prompt: str) -> str:
    while True:
        try:
            return input(prompt)
        except KeyboardInterrupt:
            print()
