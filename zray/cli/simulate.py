"""``zray simulate``: what a recorded workload would do on a cluster that is only imagined."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from zray.cli.reporting import show
from zray.core.causes import plain
from zray.errors import ZrayError
from zray.testing import workload as workloads
from zray.testing.forecast import Forecast, Terms, forecast
from zray.testing.workload import Workload

NODES_SHOWN = 20
Kind = tuple[Mapping[str, float], int]


def simulate(
    path: Path,
    sweep: Sequence[int],
    base: Mapping[str, float],
    others: Sequence[Kind],
    terms: Terms,
    arrivals: str,
    *,
    as_json: bool,
) -> int:
    """Run it for each number of nodes; returns the exit code.

    Args:
        sweep: numbers of nodes like ``base``.
        others: more nodes, in all of these, and how many of each.
    """
    found: list[tuple[int, Forecast]] = []
    try:
        workload = workloads.read(path, arrivals=arrivals)
        more = [node for node, count in others for _ in range(count)]
        for count in sweep:
            nodes = [*([base] * count), *more]
            found.append((len(nodes), forecast(workload, nodes, terms)))
    except (ZrayError, OSError) as error:
        if as_json:
            show({"error": {"code": getattr(error, "code", ""), "message": str(error)}})
        else:
            print(f"zray: {plain(str(error))}", file=sys.stderr)
        return 1
    if as_json:
        show(
            {
                "workload": {
                    "tasks": len(workload.tasks),
                    "made_on": workload.made_on,
                    "seconds": workload.seconds,
                    "left_out": workload.left_out,
                    "estimated": workload.estimated,
                },
                "forecasts": [
                    {"nodes_total": total, **msgspec.to_builtins(one)} for total, one in found
                ],
            }
        )
        return 0
    _introduce(path, workload)
    if len(found) == 1:
        _one(found[0][1])
    else:
        _several(found)
    return 0


def _introduce(path: Path, workload: Workload) -> None:
    made = f", recorded on {plain(workload.made_on)}" if workload.made_on else ""
    took = f", where it took {_time(workload.seconds)}" if workload.seconds else ""
    print(f"{plain(str(path))}: {len(workload.tasks):,} tasks{made}{took}")
    if workload.estimated:
        print(f"Of {workload.estimated:,} it is only known what most of their function took")
    if workload.left_out:
        print(f"Not in it: {workload.left_out:,} tasks and calls that cannot be simulated")


def _one(found: Forecast) -> None:
    cpus = sum(node.resources.get("CPU", 0.0) for node in found.nodes)
    least = max(found.critical_path_s, found.work_s / cpus if cpus else 0.0)
    print(
        f"\nmakespan     {_time(found.makespan_s)} on {len(found.nodes)} nodes with {cpus:g} CPUs\n"
        f"at least     {_time(least)}: {_time(found.work_s)} of work, longest chain "
        f"{_time(found.critical_path_s)}\n"
        f"utilisation  {found.utilisation:.1%}\n"
    )
    waits = found.waits
    print("tasks wait   all together    each")
    for name, seconds in (
        ("dependencies", waits.dependencies),
        ("queue", waits.queue),
        ("transfer", waits.transfer),
    ):
        print(f"{name:12} {_time(seconds):>12} {_time(seconds / found.tasks):>8}")
    print(
        f"\nin the queue: half of them up to {_time(found.queue_p50_s)}, 99 % up to "
        f"{_time(found.queue_p99_s)}, longest {_time(found.queue_max_s)}\n"
    )
    print("node     tasks    busy  utilisation")
    for node in found.nodes[:NODES_SHOWN]:
        busy = _time(node.busy_s)
        print(f"{node.name:8} {node.tasks:>5,} {busy:>7}  {node.utilisation:>10.1%}")
    if len(found.nodes) > NODES_SHOWN:
        rest = found.nodes[NODES_SHOWN:]
        shares = [node.utilisation for node in rest]
        print(
            f"{len(rest)} more {sum(node.tasks for node in rest):>5,}  from {min(shares):.1%} to "
            f"{max(shares):.1%}"
        )
    if found.scale > 1:
        print(
            f"\nLarge values were taken {found.scale:,.1f} times smaller, and bandwidth with them"
        )


def _several(found: Sequence[tuple[int, Forecast]]) -> None:
    first = found[0][1].makespan_s
    print("\nnodes   makespan  speedup  utilisation  dependencies       queue    transfer")
    for total, one in found:
        waits = one.waits
        print(
            f"{total:>5} {_time(one.makespan_s):>10} {first / one.makespan_s:>8.2f} "
            f"{one.utilisation:>12.1%} {_time(waits.dependencies):>13} {_time(waits.queue):>11} "
            f"{_time(waits.transfer):>11}"
        )
    print("\nThe last three are what tasks wait for, all together")


def _time(seconds: float) -> str:
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1000:
        return f"{seconds:.2f} s"
    return f"{seconds:,.0f} s"


# ---- options ---------------------------------------------------------------------------------

_RATE = re.compile(r"([0-9.]+)\s*([kmgt]?)(?:b(?:ytes)?)?(?:/s)?", re.IGNORECASE)


def kind_of(text: str) -> tuple[dict[str, float], int]:
    """A node as ``cpus=8,gpus=1,rack=2`` or ``3*cpus=8``: its resources, and how many of it.

    Raises:
        ValueError: that is none.
    """
    from zray.cli import options

    count, times, rest = text.partition("*")
    number, what = (count, rest) if times else ("1", text)
    if not number.strip().isdecimal() or not 0 < int(number) <= NODES_MAX:
        raise ValueError(f"{text!r}: before * is how many such nodes, from 1 to {NODES_MAX:,}")
    found: dict[str, float] = {}
    for key, value in options.pairs(what):
        name = {"cpus": "CPU", "gpus": "GPU"}.get(key.lower(), key)
        found[name] = options.amount(name, value)
    if not found:
        raise ValueError(f"{text!r} says nothing of a node; write cpus=8,gpus=1")
    return found, int(number)


NODES_MAX = 10_000


def rate(text: str) -> float:
    """Bytes per second: ``1G``, ``100MB/s``.

    Raises:
        ValueError: that is none.
    """
    found = _RATE.fullmatch(text.strip())
    scale = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
    try:
        value = float(found[1]) * scale[found[2].lower()] if found is not None else 0.0
    except ValueError:
        value = 0.0
    if not 1e3 <= value <= 1e13:
        raise ValueError(f"{text!r} is no rate from 1KB/s to 10TB/s, such as 1GB/s or 100M")
    return value


def counts(text: str) -> list[int]:
    """Numbers of nodes: ``4``, or ``1,2,4,8`` for one after the other.

    Raises:
        ValueError: that is none.
    """
    parts: list[Any] = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) <= NODES_MAX for part in parts):
        raise ValueError(f"{text!r} is no number of nodes up to {NODES_MAX:,}, nor several")
    return [int(part) for part in parts]
