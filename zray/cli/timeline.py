"""``zray timeline``: what has run lately on all nodes, for a viewer of traces."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from zray.cli import reporting
from zray.cli.reporting import Failed
from zray.core.causes import plain
from zray.nodes.driver.trace_events import event
from zray.protocol import messages as m


def write(addresses: list[str], path: Path, *, as_json: bool) -> int:
    """Write the file; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            nodes = operator.nodes()
            events: list[dict[str, Any]] = []
            silent = []
            for node, told in zip(
                nodes, operator.traces([one.node_id for one in nodes]), strict=True
            ):
                if told is None:
                    silent.append(node.info.name)
                for one in told.workers if told is not None else ():
                    events += [event(_place(node), one.worker_id, span) for span in one.spans]
            events.sort(key=lambda found: float(found["ts"]))
            text = json.dumps(events)
            if str(path) == "-":
                sys.stdout.write(text)
                return 0
            path.write_text(text)
            if as_json:
                reporting.show({"output": str(path), "events": len(events), "silent": silent})
                return 0
            for name in silent:
                print(f"zray: node {plain(name)} has not answered", file=sys.stderr)
            size = os.stat(path).st_size
            print(
                f"Wrote {path} ({len(events):,} tasks and calls, {size:,} bytes); open it in "
                "https://ui.perfetto.dev or chrome://tracing"
            )
    except Failed:
        return 1
    return 0


def _place(node: m.NodeStatus) -> str:
    return f"{node.info.name} ({node.info.host})"
