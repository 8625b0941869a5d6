"""What has run, as Chrome's trace events: chrome://tracing and ui.perfetto.dev show those."""

from __future__ import annotations

from typing import Any

from zray.protocol import messages as m


def event(place: str, worker_id: bytes, span: m.Span) -> dict[str, Any]:
    """One task or call; times in microseconds since 1970. ``place``: of its node."""
    name = span.name.rpartition(".")[2] if span.is_call else span.name
    return {
        "cat": f"task::{span.name}",
        "name": name,
        "pid": place,
        "tid": f"worker:{worker_id.hex()}",
        "ts": span.began_s * 1e6,
        "dur": span.seconds * 1e6,
        "ph": "X",
        "cname": "generic_work",
        "args": {"name": name, "task_id": span.task_id.hex()},
    }
