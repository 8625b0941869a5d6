"""``zray logs``: which logs there are, and what is in one, as it grows. Reads only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from zray import limits
from zray.cli import reporting
from zray.cli.entry import INTERRUPTED
from zray.cli.reporting import Failed
from zray.cli.status import table
from zray.core.causes import plain
from zray.errors import HeadConnectionError, LogUnavailableError, NotFoundError, ZrayError
from zray.nodes.driver.log_reader import LogReader, read
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

AGAIN_S = 1.0  # after a node was not there
FOLLOW_S = 0.25  # how often it is looked whether there is more
LIST_S = 2.0  # and whether there are other logs of a job
OF_JOB_LINES = 10
_KINDS = {"": m.SOMETHING, "task": m.A_TASK, "actor": m.AN_ACTOR, "worker": m.A_WORKER}
_KINDS |= {"node": m.A_NODE, "head": m.THE_HEAD}
_HEADER = ["NODE", "LOG", "PID", "RUNS", "SIZE", "CHANGED", "STATE"]


def show(
    addresses: list[str], kind: str, name: str, *, follow: bool, tail: int | None, as_json: bool
) -> int:
    """Print a log, or which there are; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            if not name:
                _list(operator, as_json)
            elif kind == "job":
                _of_job(operator, name, follow, OF_JOB_LINES if tail is None else tail, as_json)
            else:
                place = operator.locate(name, _KINDS[kind])
                _print([read(operator, place)], tail, follow, as_json)
    except KeyboardInterrupt:  # how one ends to follow
        return INTERRUPTED
    except Failed:
        return 1
    return 0


# ---- which there are -----------------------------------------------------------------------


def everywhere(operator: Operator) -> Iterator[tuple[m.NodeStatus, m.LogFiles | None]]:
    """The logs of each node; None: it has not answered."""
    nodes = operator.nodes()
    yield from zip(nodes, operator.log_files([one.node_id for one in nodes]), strict=True)


def _list(operator: Operator, as_json: bool) -> None:
    rows, found = [], []
    for node, told in everywhere(operator):
        name = node.info.name
        if told is None:
            print(f"zray: node {plain(name)} has not answered", file=sys.stderr)
            continue
        for one in told.files:
            found.append(described(name, one))
            state = "runs" if one.alive else "ended"
            changed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.modified_s))
            size = f"{one.size:,}"
            pid = str(one.pid) if one.pid else ""
            rows.append([name, one.name, pid, one.title, size, changed, state])
        if told.left_out:
            print(
                f"zray: {told.left_out:,} older ones of {plain(name)} are not shown",
                file=sys.stderr,
            )
    if as_json:
        reporting.show(found)
    elif rows:
        print("\n".join(line.removeprefix("  ") for line in table(_HEADER, rows)))
        print("\nRead one with: zray logs PID, or zray logs ID (of a worker, actor, task or node)")
    else:
        print("No logs are kept: no worker has printed anything, and no daemon writes to a file.")


def described(node: str, one: m.LogFile) -> dict[str, Any]:
    """A log as plain data; size in bytes, time in seconds since 1970."""
    return {
        "node": node,
        "name": one.name,
        "worker_id": one.worker_id.hex(),
        "pid": one.pid,
        "job_id": one.job_id.hex(),
        "title": one.title,
        "size": one.size,
        "modified": one.modified_s,
        "alive": one.alive,
    }


# ---- what is in them -----------------------------------------------------------------------


def _of_job(operator: Operator, job: str, follow: bool, tail: int, as_json: bool) -> None:
    readers = _readers_of_job(operator, job, {})
    if not readers:
        raise NotFoundError(f"no worker that has printed anything is of job {job!r}")
    _print([*readers.values()], tail, follow, as_json, of_job=job)


def _readers_of_job(
    operator: Operator, job: str, known: dict[str, LogReader]
) -> dict[str, LogReader]:
    found = {}
    for node, told in everywhere(operator):
        for one in told.files if told is not None else ():
            is_it = one.job_id.hex().startswith(job.lower()) and one.name.endswith(".log")
            if one.job_id and is_it and one.name not in known:
                found[one.name] = LogReader(operator, node.node_id, one)
    return found


def _print(
    readers: list[LogReader], tail: int | None, follow: bool, as_json: bool, of_job: str = ""
) -> None:
    printers = [_Printer(reader, as_json, bool(of_job)) for reader in readers]
    if tail is not None:
        for reader in readers:
            reader.seek_tail(tail)
    known = {reader.file.name: reader for reader in readers}
    heard = time.monotonic()
    list_at = heard + LIST_S
    while True:
        moved = False
        for printer in printers:
            try:
                moved = printer.step() or moved
                heard = time.monotonic()
            except (HeadConnectionError, NotFoundError) as error:
                if not follow or time.monotonic() > heard + limits.HEAD_WAIT_S:
                    raise
                _try_again(printer.reader.operator, error)
        if of_job and follow and time.monotonic() >= list_at:
            more = _readers_of_job(readers[0].operator, of_job, known)
            known |= more
            printers += [_Printer(reader, as_json, True) for reader in more.values()]
            list_at = time.monotonic() + LIST_S
        printers = [one for one in printers if not one.gone]
        if not moved and (not follow or not (printers or of_job)):
            break
        if not moved:
            time.sleep(FOLLOW_S)
    for printer in printers:
        printer.finish()


def _try_again(operator: Operator, error: ZrayError) -> None:
    """A head that is started again, and then its nodes, may take a moment."""
    print(f"zray: {plain(str(error))}; trying again", file=sys.stderr)
    if isinstance(error, HeadConnectionError):
        operator.reopen(limits.HEAD_WAIT_S)
    else:
        time.sleep(AGAIN_S)


class _Printer:
    """Writes what a reader finds: as it is, or in lines for programs, or with whose they are."""

    def __init__(self, reader: LogReader, as_json: bool, named: bool) -> None:
        self.reader = reader
        self.gone = False
        self._as_json = as_json
        self._named = named
        self._rest = b""
        self._raw = not (as_json or named or sys.stdout.isatty())

    def step(self) -> bool:
        """Write the next part; whether there was one."""
        try:
            data = self.reader.next()
        except LogUnavailableError:
            self.finish()
            self.gone = True
            name = self.reader.file.name
            print(f"zray: the log {name} has been removed", file=sys.stderr)
            return False
        if self.reader.missed:
            self.finish()
        for remark in self.reader.remarks():
            print(f"zray: {plain(remark)}", file=sys.stderr)
        if data and self._raw:
            sys.stdout.buffer.write(data)
        elif data:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._line(line)
            if len(self._rest) > 1 << 20:  # no line is waited for for ever
                self.finish()
        if data:
            sys.stdout.flush()
        return bool(data)

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        one = self.reader.file
        if self._as_json:
            whose = {"log": one.name, "worker_id": one.worker_id.hex(), "pid": one.pid}
            print(json.dumps({**whose, "line": text}))
            return
        whose_text = f"({one.title or 'worker'} pid={one.pid}) " if self._named else ""
        shown = reporting.harmless(text) if sys.stdout.isatty() or self._named else text
        sys.stdout.write(f"{plain(whose_text)}{shown}\n")

    def finish(self) -> None:
        """Write the line that has no end yet."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._line(rest)
            sys.stdout.flush()
