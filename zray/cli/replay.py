"""``zray replay``: what a failed task raises now, beside what it raised then.

This process runs the task's code, as a driver does.
"""

from __future__ import annotations

import bdb
import contextlib
import os
import pdb  # noqa: T100
import reprlib
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import zray
from zray import limits
from zray.api import failed_attempts, replay
from zray.api.attempt_terms import check_returned
from zray.api.failed_attempts import Fetched
from zray.api.replay import Prepared
from zray.cli.reporting import harmless, show
from zray.core import failures
from zray.core.causes import plain
from zray.errors import ZrayError
from zray.protocol.errors import ErrorRecord
from zray.protocol.failed_run import FailedRun
from zray.runtime import task_errors

LIBRARY = os.path.dirname(os.path.dirname(limits.__file__))
DEBUGGER = (os.path.dirname(pdb.__file__) + "/pdb.py", os.path.dirname(bdb.__file__) + "/bdb.py")
REPR_CHARACTERS = 200


class _Failed(Exception):
    """It was said why this is not possible."""


@contextlib.contextmanager
def _session(addresses: list[str], *, as_json: bool, needed: bool = True) -> Iterator[None]:
    """A driver's, if one is ``needed`` or an address is given."""
    try:
        if needed or addresses:
            address = ",".join(addresses) if addresses else os.environ.get("ZRAY_ADDRESS") or "auto"
            zray.init(address, log_to_driver=True)
        try:
            yield
        finally:
            zray.shutdown()
    except (ZrayError, OSError, ValueError) as error:
        code = getattr(error, "code", "")
        if as_json:
            show({"error": {"code": code, "message": str(error)}})
        else:
            print(f"zray: {plain(str(error))}", file=sys.stderr)
        raise _Failed from None


def _is_file(what: str) -> bool:
    return os.sep in what or Path(what).is_file()


def _attempt(what: str) -> Fetched:
    if _is_file(what):
        return failed_attempts.load(Path(what))
    return failed_attempts.fetch(failed_attempts.task_id(_id(what)))


def _id(text: str) -> str:
    """Out of what ``repr`` of a reference shows as well."""
    inner = text.strip().removeprefix("ObjectRef(").partition(",")[0]
    return inner.rstrip(")")


# ---- what there is ---------------------------------------------------------------------------


def show_list(addresses: list[str], *, as_json: bool) -> int:
    """Print what can be replayed; returns the exit code."""
    try:
        with _session(addresses, as_json=as_json):
            found = failed_attempts.listed()
    except _Failed:
        return 2
    rows = [(node.node, run) for node in found for run in node.runs]
    rows.sort(key=lambda row: -row[1].failed_s)
    if as_json:
        show(
            {
                "nodes": [
                    {
                        "node": node.node,
                        "kept": node.kept,
                        "dropped": node.dropped,
                        "bytes": node.bytes,
                        "silent": node.silent,
                    }
                    for node in found
                ],
                "attempts": [
                    {
                        "task_id": run.task_id.hex(),
                        "attempt": run.attempt,
                        "name": run.name,
                        "type": "ACTOR_TASK" if run.is_call else "TASK",
                        "job_id": run.job_id.hex(),
                        "node": node,
                        "failed_s": run.failed_s or None,
                        "error": run.error,
                        "bytes": run.size,
                    }
                    for node, run in rows
                ],
            }
        )
        return 0
    for node, run in rows:
        when = _when(run.failed_s)
        error = plain(run.error).splitlines() or [""]
        print(f"{run.task_id.hex()}  {when:8}  {plain(node)}  {plain(run.name)}: {error[0][:100]}")
    for kept in found:
        if kept.silent:
            print(f"node {plain(kept.node)} has not answered", file=sys.stderr)
        else:
            more = f", {kept.dropped:,} before them were dropped" if kept.dropped else ""
            latest = f", of which the latest {len(kept.runs):,} are shown"
            some = latest if kept.kept > len(kept.runs) else ""
            print(
                f"node {plain(kept.node)} keeps {kept.kept:,} failed attempts{some}, "
                f"{kept.bytes:,} bytes{more}"
            )
    return 0


def _when(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds)) if seconds else "-"


def write(addresses: list[str], what: str, path: Path, *, as_json: bool) -> int:
    """Write an attempt to a file; returns the exit code."""
    try:
        with _session(addresses, as_json=as_json, needed=not _is_file(what)):
            attempt = _attempt(what)
            failed_attempts.dump(attempt, path)
    except _Failed:
        return 2
    size = path.stat().st_size
    if as_json:
        show({"output": str(path), "bytes": size, "task_id": attempt.run.task_id.hex()})
    else:
        left = f"\nNot in it: {plain(attempt.run.left_out)}" if attempt.run.left_out else ""
        print(f"Wrote {path} ({size:,} bytes): zray replay {path} runs it, also elsewhere.{left}")
    return 0


# ---- again -----------------------------------------------------------------------------------


def again(addresses: list[str], what: str, instead: str, how: str, *, as_json: bool) -> int:
    """Run it. ``how``: "pdb", "break" or empty. Returns the exit code."""
    try:
        with _session(addresses, as_json=as_json, needed=not _is_file(what)):
            attempt = _attempt(what)
            run = attempt.run
            if not as_json:
                _introduce(run)
            with replay.pretending(run):
                prepared = replay.prepare(attempt, replay.find(instead) if instead else None)
                if not as_json:
                    print(f"Arguments: {_arguments(prepared)}")
                    for one in replay.gone(run):
                        print(f"Gone: {plain(one)}")
                    print("\nRuns now", flush=True)
                with _aside(as_json):
                    raised, value = _run(prepared, how)
                if how == "pdb" and raised is not None:
                    _report(run, raised, value)
                    pdb.post_mortem(_users(raised))
                elif as_json:
                    show(_described(run, raised, value))
                else:
                    _report(run, raised, value)
    except _Failed:
        return 2
    return int(raised is not None)


def _aside(as_json: bool) -> contextlib.AbstractContextManager[Any]:
    """What the task prints, where the answer is for programs."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def _introduce(run: FailedRun) -> None:
    kind = "constructor" if run.actor is not None else "task"
    kind = "call" if run.call is not None else kind
    attempt = f", attempt {run.attempt}" if run.attempt > 1 else ""
    where = f" on node {plain(run.node)}" if run.node else ""
    pid = f" (pid {run.pid})" if run.pid else ""
    when = f" at {_when(run.failed_s)}" if run.failed_s else ""
    print(f"{kind} {plain(run.name)} {run.task_id.hex()}{attempt}, failed{where}{pid}{when}")
    if run.call is not None:
        before = f"{run.calls_before:,} calls had" if run.calls_before != 1 else "1 call had"
        print(
            f"The constructor runs first, then the call. {before} ended before it: what they "
            "changed in the actor is not there"
        )
    if run.left_out:
        print(f"Not kept, and fetched now if it still exists: {plain(run.left_out)}")


def _arguments(prepared: Prepared) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = REPR_CHARACTERS
    try:
        parts = [short.repr(one) for one in prepared.args]
        parts += [f"{key}={short.repr(one)}" for key, one in prepared.kwargs.items()]
    except (Exception, SystemExit) as error:  # their own code
        return f"(they cannot be shown: {type(error).__name__})"
    return harmless(", ".join(parts)) or "none"


def _shown(value: Any) -> str:
    try:
        return harmless(reprlib.repr(value))
    except (Exception, SystemExit) as error:
        return f"(what cannot be shown: {type(error).__name__})"


def _run(prepared: Prepared, how: str) -> tuple[BaseException | None, Any]:
    try:
        if how == "break":
            function, debugger = prepared.make(), pdb.Pdb()
            value = debugger.runcall(function, *prepared.args, **prepared.kwargs)
            if debugger.quitting:
                raise bdb.BdbQuit
            value = replay.finished(value)
            check_returned(prepared.run, value)
            return None, value
        return None, prepared()
    except bdb.BdbQuit as left:
        return left, None
    except BaseException as error:
        return error, None


def _users(error: BaseException) -> TracebackType | None:
    """The part of the traceback that is of the user's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        name = trace.tb_frame.f_code.co_filename
        if not (name.startswith(LIBRARY) or name in DEBUGGER):
            break
        trace = trace.tb_next
    return trace


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _users(error)))


def _same(then: ErrorRecord, raised: BaseException | None) -> bool:
    if raised is None:
        return False
    if not then.type_name:  # of the cluster's own, such as a timeout: its text names pid and line
        return isinstance(raised, ZrayError) and raised.code == then.code
    kind, text = task_errors.type_and_message(raised)
    last = kind.rpartition(".")[2]
    return then.type_name.rpartition(".")[2] == last and then.message == text


def _report(run: FailedRun, raised: BaseException | None, value: Any) -> None:
    then = failures.read(run.error)
    print(f"\n---- then {'-' * 60}\n{harmless(then.traceback or then.message).rstrip()}")
    if raised is None:
        print(f"\n---- now {'-' * 61}\nreturns {_shown(value)}\n")
        print("It does not raise now.")
        return
    if isinstance(raised, bdb.BdbQuit):
        print("\nThe debugger was left before it ended.")
        return
    print(f"\n---- now {'-' * 61}\n{harmless(_text(raised)).rstrip()}\n")
    if _same(then, raised):
        print("It raises the same as then.")
    else:
        kind = then.type_name or f"{then.code}, of the cluster's"
        now, _ = task_errors.type_and_message(raised)
        print(f"It raises something else: {plain(now)} now, {plain(kind)} then.")


def _described(run: FailedRun, raised: BaseException | None, value: Any) -> dict[str, Any]:
    then = failures.read(run.error)
    now = None
    if raised is not None:
        kind, text = task_errors.type_and_message(raised)
        now = {"type": kind, "message": text, "traceback": _text(raised)}
    return {
        "task_id": run.task_id.hex(),
        "name": run.name,
        "attempt": run.attempt,
        "node": run.node,
        "pid": run.pid,
        "failed_s": run.failed_s or None,
        "then": {
            "code": then.code,
            "type": then.type_name,
            "message": then.message,
            "traceback": then.traceback,
        },
        "now": now,
        "returned": _shown(value) if raised is None else None,
        "same": _same(then, raised),
        "left_out": run.left_out,
    }
