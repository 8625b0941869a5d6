"""``timeline``: which tasks and calls have run where, and when, for a viewer of traces."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from zray.api.cluster import nodes
from zray.api.session import participant as connected
from zray.nodes.driver.trace_events import event
from zray.protocol import messages as m

ANSWER_S = 2.0  # how long a node is waited for


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """The tasks and actors' calls that have ended lately, as Chrome's trace events.

    As ``ray.timeline``, whose events of one task are one here: ``cat`` is "task::" and the task's
    name, ``name`` that or the method's, ``pid`` the address of the node, ``tid`` "worker:" and the
    worker's id, ``ts`` and ``dur`` in microseconds (``ts`` since 1970), ``ph`` "X"; ``args`` has
    the id of the task. Sorted by ``ts``. With ``filename`` they are written there, as JSON, and
    nothing is returned: chrome://tracing and ui.perfetto.dev load that.

    Workers remember their last 1,000 tasks, and nodes those of workers that have ended in peace;
    each node tells its last 10,000. A worker that is killed takes with it what it remembers; one
    that is busy in C for more than half a second, and a node that cannot be reached, are left out.

    Raises:
        NotInitializedError: before ``init``. It is a RuntimeError, as in Ray.
    """
    there = [node for node in nodes() if node["Alive"]]
    participant = connected()
    events: list[dict[str, Any]] = []
    for node in there:
        ask = partial(_question, participant.client.process_id, bytes.fromhex(node["NodeID"]))
        answer = participant.ask(ask, ANSWER_S)
        found = answer.workers if isinstance(answer, m.Traced) else []
        place = node["NodeManagerAddress"]
        events += [event(place, one.worker_id, span) for one in found for span in one.spans]
    events.sort(key=lambda one: float(one["ts"]))
    if filename is None:
        return events
    with open(filename, "w", encoding="utf-8") as file:
        json.dump(events, file)
    return None


def _question(asker: bytes, node_id: bytes, number: int) -> m.Message:
    return m.Trace(number, asker, node_id)
