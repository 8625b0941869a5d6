"""The commands that run something once more: options only.

Must never import zmq before a command runs: help stays fast, and so does completion.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from zray.cli import options


@click.command()
@options.address_option
@click.argument("what", required=False, metavar="TASK|FILE")
@click.option("--list", "as_list", is_flag=True, help="Show what can be replayed.")
@click.option("--pdb", "post_mortem", is_flag=True, help="Debug where it raises.")
@click.option("--break", "stops", is_flag=True, help="Debug from the first line on.")
@click.option(
    "--with",
    "instead",
    metavar="FILE.py:NAME",
    help="Run this function, or actor's class, in its place: what you have changed. MODULE:NAME "
    "is an installed one.",
)
@click.option(
    "--dump",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run nothing: write it to a file, for zray replay FILE on another machine.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def replay(
    given: Sequence[Sequence[str]],
    what: str | None,
    as_list: bool,
    post_mortem: bool,
    stops: bool,
    instead: str | None,
    dump: Path | None,
    as_json: bool,
) -> None:
    """Run a failed task again, here, with the arguments that it had; under a debugger if asked.

    TASK is the id of a task, of an actor's call, or of what it returns. Shown is what it raises now
    beside what it raised then. Of an actor's method the constructor runs first; what calls before
    have changed in the actor is not there. What it submits goes to the cluster. FILE runs without a
    cluster, unless --address says which.

    Exit code 0: it does not raise now; 1: it raises; 2: it cannot be replayed, which is said.
    """
    if as_list == (what is not None):
        raise click.UsageError("give a TASK or a FILE, or --list")
    if sum((post_mortem, stops, dump is not None)) > 1:
        raise click.UsageError("give only one of --pdb, --break and --dump")
    if as_json and (post_mortem or stops):
        raise click.UsageError("a debugger and --json do not go together")
    from zray.cli import replay as replaying

    heads = options.heads(given)
    if what is None:
        sys.exit(replaying.show_list(heads, as_json=as_json))
    if dump is not None:
        sys.exit(replaying.write(heads, what, dump, as_json=as_json))
    how = "pdb" if post_mortem else "break" if stops else ""
    sys.exit(replaying.again(heads, what, instead or "", how, as_json=as_json))


@options.checked
def node_counts(text: str) -> list[int]:
    """``4``, or ``1,2,4,8``."""
    from zray.cli import simulate as simulating

    return simulating.counts(text)


@options.checked
def node_kind(text: str) -> tuple[dict[str, float], int]:
    """``cpus=8,gpus=1``, or ``3*cpus=8``."""
    from zray.cli import simulate as simulating

    return simulating.kind_of(text)


@options.checked
def bandwidth(text: str) -> float:
    """``1GB/s``."""
    from zray.cli import simulate as simulating

    return simulating.rate(text)


@click.command()
@click.argument(
    "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="TRACE.json"
)
@click.option(
    "--nodes",
    "sweep",
    type=node_counts,
    metavar="N[,N...]",
    help="How many nodes; several: one after the other. Default: 1, or 0 with --node.",
)
@click.option("--cpus", type=options.cpus, default="1", metavar="K", help="Of each of them.")
@click.option(
    "--node",
    "others",
    type=node_kind,
    multiple=True,
    metavar="[N*]K=V,...",
    help="More nodes, such as cpus=8,gpus=1 or 3*cpus=64. Repeat for more.",
)
@click.option(
    "--latency",
    "latency_ms",
    type=options.Between(0.001, 10_000),
    default=0.3,
    show_default=True,
    metavar="MS",
    help="Between two machines, one way, in milliseconds.",
)
@click.option(
    "--bandwidth", type=bandwidth, default="1GB/s", show_default=True, help="Of one connection."
)
@click.option(
    "--overhead",
    "overhead_us",
    type=options.Between(0, 1e6),
    metavar="US",
    help="What a worker needs beside a task's function, in microseconds. Default: as measured.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["burst", "recorded"]),
    default="burst",
    show_default=True,
    help="Of a timeline that does not say: tasks are submitted all at once, or when each began.",
)
@click.option("--seed", type=click.IntRange(0, 2**53), default=0, help="Of all delays.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def simulate(
    path: Path,
    sweep: list[int] | None,
    cpus: float,
    others: Sequence[tuple[dict[str, float], int]],
    latency_ms: float,
    bandwidth: float,
    overhead_us: float | None,
    arrivals: str,
    seed: int,
    as_json: bool,
) -> None:
    """Foretell what a recorded workload does on a cluster that you only imagine.

    zray's own scheduler runs it, in simulated time: when it is done, how busy nodes are, and what
    tasks wait for. TRACE.json is what zray.util.workload.record_workload has written, or zray
    timeline (which has no resources: each task takes one CPU). The same --seed gives the same
    numbers.

    Exit code 0: done; 1: the file or the cluster makes no sense, which is said.
    """
    from zray.cli import simulate as simulating
    from zray.testing.forecast import OVERHEAD_S, Terms

    overhead_s = OVERHEAD_S if overhead_us is None else overhead_us / 1e6
    terms = Terms(latency_ms / 1e3, bandwidth, overhead_s, seed)
    numbers = sweep if sweep is not None else [0 if others else 1]
    if 0 in numbers and not others:
        raise click.UsageError("a cluster has a node at least: --nodes 1, or --node cpus=8")
    base = {"CPU": cpus}
    sys.exit(simulating.simulate(path, numbers, base, others, terms, arrivals, as_json=as_json))


COMMANDS: tuple[click.Command, ...] = (replay, simulate)
