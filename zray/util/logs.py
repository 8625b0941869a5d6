"""Logs of a cluster's processes, under Ray's names: ``list_logs`` and ``get_log`` of its state API.

They come from the nodes that keep them, by way of the head, as fast as they are read.
"""

from __future__ import annotations

import codecs
import fnmatch
import re
import time
from collections.abc import Iterator

from zray.errors import LogUnavailableError, NotFoundError, ZrayError
from zray.nodes import contact
from zray.nodes.driver.log_reader import LogReader, read
from zray.nodes.driver.operator import Operator, Place
from zray.protocol import messages as m
from zray.runtime import session

FOLLOW_S = 0.25
TAIL_LINES = 1000  # as in Ray
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
_ANSI_BEGUN = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,16})?\Z")
_CATEGORIES = {"head": "gcs_server", "node": "raylet"}


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: float = 30,
) -> dict[str, list[str]]:
    """The names of the logs that a node keeps.

    Args:
        address: of the head; None: of the cluster that this program is connected to, or of the one
            that runs on this machine.
        node_id, node_ip: which node, by its id in hexadecimal digits, its name, or its address.
        glob_filter: only names that match it, as ``"worker-*"``.
        timeout: in seconds. A node that is there answers within 10 s or not at all.

    Returns:
        By kind, as in Ray: ``"worker_out"``, each with all that a worker prints; ``"raylet"`` and
        ``"gcs_server"`` where those daemons write to a file.

    Raises:
        ValueError: neither ``node_id`` nor ``node_ip`` is given.
        NotFoundError: there is no such node. HeadConnectionError: the head cannot be reached.
    """
    with _operator(address) as operator:
        place = _node(operator, node_id, node_ip)
        (told,) = operator.log_files([place.node_id])
        found: dict[str, list[str]] = {}
        for one in told.files if told is not None else ():
            if glob_filter is None or fnmatch.fnmatchcase(one.name, glob_filter):
                found.setdefault(_CATEGORIES.get(one.name, "worker_out"), []).append(one.name)
        return found


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    timeout: float = 30,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str | None = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
    _interval: float | None = None,
    filter_ansi_code: bool = False,
) -> Iterator[str]:
    """What is in a log, in parts as they come.

    Args:
        address: as for ``list_logs``.
        node_id, node_ip: of the node that keeps ``filename``, or runs ``pid``.
        filename: one of ``list_logs``.
        actor_id, task_id: in hexadecimal digits: the log of the worker that is the actor, or what
            the task has printed: each node knows that of its last 10,000 tasks that have.
        pid: of a worker.
        follow: go on as it grows, until the iterator is closed.
        tail: so many lines at the end; -1: 1,000, as in Ray, and with ``follow`` all.
        timeout: in seconds; as for ``list_logs``.
        suffix: in Ray "out" or "err"; here both are in one log.
        encoding, errors: how bytes become text. Anybody may print anything: ``errors="replace"``
            never fails.
        submission_id: of a submitted job: what its command has printed, since its log was last
            rotated.
        attempt_number: the parts of all attempts of ``task_id`` come, whichever it is.
        _interval: with ``follow``, how often it is looked for more, in seconds.
        filter_ansi_code: leave out escape sequences for colours and the like.

    Raises:
        ValueError: it is not said, or more than once, whose log.
        NotFoundError: no process has it, or no job. LogUnavailableError: it has no log.
        HeadConnectionError: the head cannot be reached, or not any more.
        UnicodeDecodeError: as ``encoding`` and ``errors`` say.
    """
    given = (filename, actor_id, task_id, pid, submission_id)
    if len([one for one in given if one is not None]) != 1:
        raise ValueError(
            "say whose log: one of filename=, actor_id=, task_id=, pid= and submission_id="
        )
    if suffix not in ("out", "err"):
        raise ValueError(f'suffix is "out" or "err", not {suffix!r}')
    if filename is not None and node_id is None and node_ip is None:
        raise ValueError("say with node_id= or node_ip= which node has that file")
    lines = tail if tail >= 0 else (None if follow else TAIL_LINES)
    pause_s = FOLLOW_S if _interval is None else _interval
    parts = _parts(
        *(address, node_id, node_ip, filename, actor_id, task_id, pid, submission_id),
        *(follow, lines, encoding or "utf-8", errors or "strict", pause_s),
    )
    return _plain(parts) if filter_ansi_code else parts


def _plain(parts: Iterator[str]) -> Iterator[str]:
    """Without escape sequences, though one begins in a part and ends in the next."""
    rest = ""
    for part in parts:
        text = _ANSI.sub("", rest + part)
        begun = _ANSI_BEGUN.search(text)
        rest = text[begun.start() :] if begun is not None else ""
        if text := text[: len(text) - len(rest)]:
            yield text
    if rest:
        yield rest


def _parts(
    address: str | None,
    node_id: str | None,
    node_ip: str | None,
    filename: str | None,
    actor_id: str | None,
    task_id: str | None,
    pid: int | None,
    submission_id: str | None,
    follow: bool,
    lines: int | None,
    encoding: str,
    errors: str,
    pause_s: float,
) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    with _operator(address) as operator:
        if submission_id is not None:
            node_id, filename = _supervisor_log(operator, submission_id)
        if filename is not None:
            place = _node(operator, node_id, node_ip)
            (told,) = operator.log_files([place.node_id])
            named = [one for one in told.files if one.name == filename] if told else []
            if not named:
                raise NotFoundError(f"node {place.node} has no log {filename!r}; see list_logs()")
            reader = LogReader(operator, place.node_id, named[0])
        else:
            kind = m.AN_ACTOR if actor_id else m.A_TASK if task_id else m.A_WORKER
            place = operator.locate(str(actor_id or task_id or pid)[:32], kind)
            reader = read(operator, place)
        if lines is not None:
            reader.seek_tail(lines)
        while True:
            data = reader.next()
            if text := decoder.decode(data):
                yield text
            if not data and not follow:
                break
            if not data:
                time.sleep(pause_s)
        if text := decoder.decode(b"", final=True):
            yield text


def _supervisor_log(operator: Operator, submission_id: str) -> tuple[str, str]:
    """The node and the file of what a submitted job prints."""
    from zray.jobs.operations import submitted

    job = submitted(operator, submission_id)
    if not job.worker_id:
        raise LogUnavailableError(f"job {job.submission_id} has not started, so it has no log yet")
    return job.node_id.hex(), f"worker-{job.worker_id.hex()}.log"


def _node(operator: Operator, node_id: str | None, node_ip: str | None) -> Place:
    if node_id is not None:
        return operator.locate(node_id, m.A_NODE)
    if node_ip is None:
        raise ValueError("say which node: node_id= or node_ip=")
    for node in operator.nodes():
        if node.info.host == node_ip:
            return operator.locate(node.node_id.hex(), m.A_NODE)
    raise NotFoundError(f"no node has the address {node_ip!r}")


def _operator(address: str | None) -> Operator:
    if address is not None:
        return Operator(*contact.reach(address))
    connected = session.current()
    if connected is None:
        return Operator(*contact.running())
    info = getattr(connected, "info", None)
    if info is None:
        raise ZrayError("a task cannot read logs of the cluster, nor is there one in local mode")
    return Operator(info, connected.addresses)
