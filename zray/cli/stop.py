"""``zray stop``: end one cluster, by asking its head, or else by a signal to that very process.

Must never signal a process that is not proven to be the head meant: it holds the lock on the data
directory. No process is ever chosen by its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from zray import limits
from zray.cli.supervised import LOCK_NAME
from zray.errors import HeadConnectionError, KeyFileError, NothingListensError, ZrayError
from zray.nodes import contact
from zray.nodes.driver.observer import Observer
from zray.nodes.node_record import lock_holder, nodes_of
from zray.protocol import messages as m
from zray.runtime import connection
from zray.runtime.connection import ConnectionInfo

REASON = "zray stop was called"


def stop_named(name: str) -> int:
    """Stop the cluster of that name on this machine; returns the exit code."""
    directory = connection.home() / "clusters" / name
    head = holder(directory)
    if head is not None:
        return _stop_with_parent(directory, head, name)
    ended = _end_parent(directory, name)
    if ended is not None:
        return ended
    ended = _stop_left(_of_killed_head(directory), name)
    if ended is not None:
        return ended
    print(f"No cluster named {name} runs here; nothing was stopped.")
    for other in _running_names():
        print(f"  {other} runs; stop it with: zray stop --name {other}")
    if address := os.environ.get("ZRAY_ADDRESS"):
        print(f"  ZRAY_ADDRESS is {address}; stop that one with: zray stop --address {address}")
    return 0


def stop_directory(directory: Path) -> int:
    """Stop the cluster whose head uses that data directory; returns the exit code."""
    head = holder(directory)
    if head is None:
        ended = _end_parent(directory, str(directory))
        if ended is not None:
            return ended
        ended = _stop_left(_of_killed_head(directory), str(directory))
        if ended is not None:
            return ended
        print(f"No head uses {directory}; nothing was stopped.")
        return 0
    return _stop_with_parent(directory, head, str(directory))


def stop_at(addresses: list[str]) -> int:
    """Stop the cluster whose heads are at these addresses; returns the exit code."""
    try:
        info, target = contact.reach(",".join(addresses))
        directory = connection.home() / "clusters" / info.name
        head = holder(directory)
        if head is not None and head.pid == info.pid and info.host == socket.gethostname():
            return _stop_with_parent(directory, head, info.name)
        return _ask(info, target, None, info.name)
    except NothingListensError as error:
        if all(map(_refused, addresses)):
            for path in connection.home().glob("clusters/*/connection.json"):
                left = _of_killed_head(path.parent)
                if left is not None and {*addresses} & {*left.addresses}:
                    ended = _stop_left(left, left.name)
                    if ended is not None:
                        return ended
            print(f"Nothing runs at {', '.join(addresses)}; nothing was stopped.")
            return 0
        return _failed(error)
    except (ZrayError, OSError) as error:
        return _failed(error)


def _stop(head: psutil.Process, title: str) -> int:
    """Stop the cluster whose head is a known process of this machine."""
    found = _connection_of(head.pid)
    if found is None:
        print(f"The head (pid {head.pid}) has no connection file, so it is told by SIGTERM.")
        return _terminate(head, title)
    try:
        return _ask(found, ",".join(found.reachable()), head, title)
    except (HeadConnectionError, OSError) as error:
        print(f"The head did not take the request, so it is told by SIGTERM ({error}).")
        return _terminate(head, title, found.elsewhere(found.addresses), found)


def _ask(info: ConnectionInfo, target: str, head: psutil.Process | None, title: str) -> int:
    started = time.monotonic()
    with Observer(info, target) as observer:
        status = observer.status()
        target = observer.address
        here = [head] if head is not None else []
        for node in status.nodes:
            if node.info.machine == _machine():
                with contextlib.suppress(psutil.Error):
                    here.append(psutil.Process(node.info.pid))
        here += _heads_here(status.heads)
        observer.shut_down(REASON)
    unfinished = sum(job.unfinished for job in status.jobs)
    lost = f"; {unfinished:,} unfinished tasks were dropped" if unfinished else ""
    count = len(status.nodes)
    if not gone(here, limits.STOP_S - (time.monotonic() - started)):
        left = [process.pid for process in here if _runs(process)]
        print(
            f"zray: cluster {title} was told to stop, but after {limits.STOP_S:g} s still run: "
            f"{', '.join(map(str, left))}; kill -9 ends them, and what they started ends with them",
            file=sys.stderr,
        )
        return 1
    nodes = "1 node" if count == 1 else f"{count} nodes"
    others = len(status.heads) - 1
    heads = f", {others} that stood by" if others > 0 else ""
    print(f"Stopped cluster {title}: head {target}{heads} and {nodes}{lost}.")
    return 0


def _heads_here(heads: Sequence[m.HeadInfo]) -> list[psutil.Process]:
    """Those of this machine."""
    found = []
    for head in heads:
        if head.host == socket.gethostname():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(head.pid)
                if 0 <= head.since_s - process.create_time() < limits.HEAD_WAIT_S:
                    found.append(process)  # and no later one with the same id
    return found


def _terminate(
    head: psutil.Process,
    title: str,
    others: Sequence[str] = (),
    info: ConnectionInfo | None = None,
) -> int:
    """``others``: addresses of heads that lead or may lead when this one has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        head.send_signal(signal.SIGTERM)
        head.send_signal(signal.SIGCONT)  # a process that is stopped does not even end
    if not gone([head], limits.STOP_S):
        print(
            f"zray: the head (pid {head.pid}) has not ended {limits.STOP_S:g} s after SIGTERM; "
            f"kill -9 {head.pid} ends it, and another zray stop then its nodes of this machine",
            file=sys.stderr,
        )
        return 1
    stopped = f"Stopped the head of cluster {title} (pid {head.pid}) and its own node."
    if info is not None and others:
        print(stopped)
        return _stop_others(info, others, title)
    print(
        f"{stopped} Nodes elsewhere were not told, and end by themselves when it stays away for "
        f"{limits.HEAD_LOST_GRACE_S / 60:g} min."
    )
    return 0


def _stop_others(info: ConnectionInfo, others: Sequence[str], title: str) -> int:
    """The heads that are left, one of which leads now, and the nodes."""
    where = ",".join(others)
    try:
        return _ask(info, where, None, title)
    except (HeadConnectionError, OSError) as error:
        if all(map(_refused, others)):
            return 0
        print(
            f"zray: its other heads ({where}) were not told, and go on as soon as they can "
            f"({error}); zray stop on the machine of one of them stops all of them",
            file=sys.stderr,
        )
        return 1


def _stop_left(info: ConnectionInfo | None, title: str) -> int | None:
    """Stop the cluster of a head that was killed here: other heads of it may go on; None: nothing
    of it is there."""
    if info is not None and info.heads:
        with contextlib.suppress(HeadConnectionError, OSError):
            return _ask(info, ",".join(info.elsewhere(info.addresses)), None, title)
    return _end_orphans(info, title)


def _stop_with_parent(directory: Path, head: psutil.Process, title: str) -> int:
    """Who would start a supervised head again ends with it, a moment later."""
    parent = lock_holder(directory / LOCK_NAME)
    status = _stop(head, title)
    if parent is not None and not status:
        gone([parent], limits.STOP_S / 2)
    return status


def _end_parent(directory: Path, title: str) -> int | None:
    """End who is about to start a head again, and what the last one has left; None: nobody is."""
    parent = lock_holder(directory / LOCK_NAME)
    if parent is None:
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        parent.send_signal(signal.SIGTERM)
        parent.send_signal(signal.SIGCONT)
    if not gone([parent], limits.STOP_S):
        print(
            f"zray: the supervisor of cluster {title} (pid {parent.pid}) has not ended "
            f"{limits.STOP_S:g} s after SIGTERM; kill -9 {parent.pid} ends it",
            file=sys.stderr,
        )
        return 1
    print(f"Stopped the supervisor of cluster {title} (pid {parent.pid}), whose head had ended.")
    return _end_orphans(_of_killed_head(directory), title) or 0


def _end_orphans(info: ConnectionInfo | None, title: str) -> int | None:
    """End the nodes of this machine whose head was killed; None: there are none."""
    nodes = nodes_of(info.cluster_id) if info is not None else []
    if not nodes:
        return None
    for node in nodes:
        with contextlib.suppress(psutil.NoSuchProcess):
            node.send_signal(signal.SIGTERM)
            node.send_signal(signal.SIGCONT)
    pids = ", ".join(str(node.pid) for node in nodes)
    if not gone(nodes, limits.STOP_S):
        print(
            f"zray: not all nodes of cluster {title} (pid {pids}) have ended {limits.STOP_S:g} s "
            "after SIGTERM; kill -9 ends them, and what they started ends with them",
            file=sys.stderr,
        )
        return 1
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    print(f"Stopped {count} of cluster {title} (pid {pids}); its head had been killed.")
    return 0


def _of_killed_head(directory: Path) -> ConnectionInfo | None:
    """What the last head of a data directory has left there, if it was one of this machine."""
    with contextlib.suppress(KeyFileError):
        info = ConnectionInfo.load(directory / "connection.json")
        if info.host == socket.gethostname():
            return info
    return None


# ---- who is it -----------------------------------------------------------------------------


def holder(directory: Path) -> psutil.Process | None:
    """The head that uses a data directory now: its lock is taken, and by the pid it names."""
    return lock_holder(directory / "lock")


def gone(processes: Sequence[psutil.Process], timeout_s: float) -> bool:
    """Wait until all have ended; one that nobody has reaped yet has."""
    deadline = time.monotonic() + max(0.0, timeout_s)
    while any(map(_runs, processes)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _connection_of(pid: int) -> ConnectionInfo | None:
    for path in connection.home().glob("clusters/*/connection.json"):
        with contextlib.suppress(KeyFileError):
            info = ConnectionInfo.load(path)
            if info.pid == pid and info.host == socket.gethostname():
                return info
    return None


def _running_names() -> list[str]:
    found = connection.home().glob("clusters/*/lock")
    return sorted(path.parent.name for path in found if holder(path.parent) is not None)


def _machine() -> str:
    """What nodes of this machine say they run on."""
    if sys.platform != "linux":
        return ""
    from zray.runtime.linux.machine import machine_id

    return machine_id()


def _refused(address: str) -> bool:
    """Whether the machine is there and says that nothing listens."""
    try:
        socket.create_connection(connection.parse_address(address), 1.0).close()
    except OSError as error:
        return error.errno == errno.ECONNREFUSED
    return False


def _failed(error: Exception) -> int:
    print(f"zray: {error}", file=sys.stderr)
    return 1
