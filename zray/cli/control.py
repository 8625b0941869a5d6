"""``zray kill`` and ``zray drain``: end a task, an actor or a worker; empty a node."""

from __future__ import annotations

import sys
import time

from zray.cli import reporting
from zray.cli.reporting import Failed
from zray.core.causes import plain
from zray.nodes.driver.operator import Operator, Place
from zray.protocol import messages as m

LOOK_S = 0.5


def kill(addresses: list[str], what: str, *, as_json: bool) -> int:
    """End something, and say what; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            place = operator.victim(what)
            answer = operator.kill(place)
            if as_json:
                reporting.show(
                    {**place.described(), "killed": not answer.text, "remark": answer.text}
                )
            else:
                if answer.text and place.worker_id:
                    print(plain(f"Told its driver to end {place.in_words()}"))
                else:
                    print(plain(answer.text or f"Killed {place.in_words()}"))
    except Failed:
        return 1
    return 0


def drain(
    addresses: list[str],
    node: str,
    deadline_s: float,
    reason: str,
    *,
    wait: bool,
    as_json: bool,
) -> int:
    """Empty a node; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            place = operator.locate(node, m.A_NODE)
            answer = operator.drain(place, reason, deadline_s)
            if not as_json:
                limit = f", within {deadline_s:g} s" if deadline_s else ""
                print(
                    plain(f"Node {place.node} is being drained{limit}; zray status shows how far")
                )
            if wait:
                _await_end(operator, place, as_json)
            if as_json:
                reporting.show({**place.described(), "left": wait, "remark": answer.text})
    except Failed:
        return 1
    return 0


def _await_end(operator: Operator, place: Place, as_json: bool) -> None:
    said = ""
    while True:
        there = [one for one in operator.status().nodes if one.node_id == place.node_id]
        if not there:
            break
        if there[0].remark != said and not as_json:
            said = there[0].remark
            print(f"zray: {plain(said)}", file=sys.stderr)
        time.sleep(LOOK_S)
    if not as_json:
        print(plain(f"Node {place.node} has left"))
