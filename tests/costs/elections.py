"""How long a cluster is without a leader, and what ends a term without need; on a real etcd of 3.

    python -m tests.costs.elections [--rounds 20] [--ttl 3 --renew 0.5 --fence 2.4]

``gone``: the leading head is killed, and counts as another machine's, so its lease has to end.
``switch``: it gives the lead back. ``etcd killed``, ``etcd asleep``: the member that leads etcd is
killed, or stopped for some seconds: when it stores again, and how often it lost its lead.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.etcd_cluster import Etcd
from zray.core.head.leadership import LeaseTerms, State
from zray.nodes.head.election import Election
from zray.protocol.head_messages import HeadInfo
from zray.store import etcd_address
from zray.store.etcd import EtcdStore

ASLEEP_S = 5.0
DEADLINE_S = 60.0

HEAD = """
import os, sys, time
from zray.core.head.leadership import LeaseTerms
from zray.nodes.head.election import Election
from zray.protocol.head_messages import HeadInfo
from zray.store import etcd_address

me = HeadInfo(os.urandom(16), [], "elsewhere", os.getpid(), "0", time.time())
ttl, *others = map(float, sys.argv[2:])
terms = LeaseTerms(int(ttl), *others)
election = Election(etcd_address.parse(sys.argv[1], {}), "c", me, terms=terms)
election.start()
election.campaign()
election.lead(30.0)
print("leads", flush=True)
sys.stdin.read()
"""


def begun(url: str, host: str, terms: LeaseTerms) -> Election:
    me = HeadInfo(os.urandom(16), [], host, os.getpid(), "0", time.time())
    election = Election(etcd_address.parse(url, {}), "c", me, terms=terms)
    election.start()
    return election


def waited(condition: Callable[[], Any]) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.001)
    return time.monotonic() - began


def leads(election: Election) -> bool:
    return election.view().state is State.LEADING


def gone(etcd: Etcd, terms: LeaseTerms) -> float:
    """Seconds from the end of a leader's machine until another leads."""
    command = [sys.executable, "-c", HEAD, etcd.url, *map(str, terms)]
    leader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert leader.stdout is not None and leader.stdout.readline() == b"leads\n"
    standby = begun(etcd.url, "here", terms)
    standby.campaign()
    waited(lambda: standby.view().leader is not None)
    time.sleep(time.time() % terms.renew_s)  # at any moment between two renewals
    leader.kill()
    leader.communicate()
    took = waited(lambda: leads(standby))
    standby.end()
    return took


def switch(etcd: Etcd, terms: LeaseTerms) -> float:
    """Seconds from giving the lead back until another leads."""
    first, second = begun(etcd.url, "a", terms), begun(etcd.url, "b", terms)
    first.campaign()
    first.lead(DEADLINE_S)
    second.campaign()
    waited(lambda: second.view().leader is not None)
    first.step_down("to measure it")
    took = waited(lambda: leads(second))
    second.end()
    first.end()
    return took


def outage(etcd: Etcd, terms: LeaseTerms, *, killed: bool) -> tuple[float, bool]:
    """Seconds until a leader stores again, and whether it was fenced."""
    etcd.await_member(0)
    election = begun(etcd.url, "here", terms)
    election.campaign()
    term = election.lead(DEADLINE_S)
    store = EtcdStore(etcd_address.parse(etcd.url, {}), "c", term)
    store.open()
    time.sleep(time.time() % terms.renew_s)
    member = etcd.leader()
    began = time.monotonic()
    if killed:
        etcd.kill(member)
    else:
        etcd.signal(member, signal.SIGSTOP)
    store.submit(1, [("t", b"k", b"v")])
    while not store.completed() and store.failure() is None:
        select.select([store.fileno()], [], [], 0.05)
    took = time.monotonic() - began
    time.sleep(max(0.0, began + ASLEEP_S - time.monotonic()))
    fenced = bool(term.fenced())
    if killed:
        etcd.start(member)
    else:
        etcd.signal(member, signal.SIGCONT)
    store.close()
    election.end()
    return took, fenced


def row(what: str, times: list[float], fenced: int | str = "") -> None:
    figures = f"{statistics.median(times):.2f} s | {max(times):.2f} s | {min(times):.2f} s"
    print(f"| {what} | {figures} | {fenced} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="one of the four")
    usual = LeaseTerms()
    parser.add_argument("--ttl", type=int, default=usual.ttl_s)
    parser.add_argument("--renew", type=float, default=usual.renew_s)
    parser.add_argument("--fence", type=float, default=usual.fence_s)
    options = parser.parse_args()
    terms = LeaseTerms(options.ttl, options.renew, usual.retry_s, options.fence)
    rounds = range(options.rounds)
    print("| | median | worst | best | terms lost |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        etcd = Etcd(Path(directory), 3)
        try:
            for what, measure in (("gone", gone), ("switch", switch)):
                if options.only in ("", what):
                    row(what, [measure(etcd, terms) for _ in rounds])
            for what, killed in (("etcd killed", True), ("etcd asleep", False)):
                if options.only in ("", what):
                    found = [outage(etcd, terms, killed=killed) for _ in rounds]
                    lost = sum(fenced for _, fenced in found)
                    row(what, [took for took, _ in found], f"{lost} of {len(found)}")
        finally:
            etcd.close()


if __name__ == "__main__":
    main()
