"""``zray memory``, ``zray top`` and ``zray envs``: their options.

Must never import zmq or rich before one of them runs: help stays fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from zray.cli import options
from zray.cli.operations import json_option

# Ray's words for them beside the own ones.
GROUPS: Final = {"node": "node", "call_site": "call_site"}
GROUPS_OF_RAY: Final = {"node_address": "node", "stack_trace": "call_site"}
SORTS: Final = {"size": "size", "pid": "pid", "reference_type": "reference_type"}
SORTS_OF_RAY: Final = {"object_size": "size"}


class Either(click.Choice[str]):
    """One of some words, of which ``others`` mean the same as the first ones."""

    def __init__(self, words: dict[str, str], others: dict[str, str]) -> None:
        super().__init__([*words], case_sensitive=False)
        self._others = others

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower().replace("-", "_")
        return super().convert(self._others.get(text, text), param, ctx)


@click.command()
@options.address_option
@click.option(
    "--group-by",
    type=Either(GROUPS, GROUPS_OF_RAY),
    default=None,
    help="With a heading and a sum for each node, or for each line that made references.",
)
@click.option("--sort-by", type=Either(SORTS, SORTS_OF_RAY), default="size", help="Default: size.")
@click.option(
    "--units",
    type=click.Choice(["B", "KB", "MB", "GB"], case_sensitive=False),
    default=None,
    help="Of sizes. Default: such as fits each.",
)
@click.option("--stats-only", is_flag=True, help="Only the sums.")
@click.option(
    "--num-entries",
    "-n",
    type=click.IntRange(1),
    default=100,
    help="So many lines, of each group. Default: 100.",
)
@json_option
def memory(
    given: Sequence[Sequence[str]],
    group_by: str | None,
    sort_by: str,
    units: str | None,
    stats_only: bool,
    num_entries: int,
    as_json: bool,
) -> None:
    """Show what holds each object: references of programs, tasks, actors, arrays in memory.

    All drivers and workers are asked; who does not answer within two seconds is named. With
    ZRAY_RECORD_CALL_SITE=1 in a program's environment it is known which line made a reference.

    Exit code 0: that is what there is; 1: the head cannot be reached.
    """
    from zray.cli import memory as view

    chosen = view.MemoryView(group_by or "", sort_by, (units or "").upper(), num_entries)
    heads = options.heads(given)
    sys.exit(view.show(heads, chosen, only_stats=stats_only, as_json=as_json))


@click.command()
@options.address_option
@click.option(
    "--sort",
    type=click.Choice(["cpu", "memory", "time", "name"]),
    default="cpu",
    help="Of processes. Default: cpu. Live: keys P, M, T and N.",
)
@click.option(
    "--delay",
    "-d",
    type=options.Between(0.2, 3600),
    default=None,
    metavar="SECONDS",
    help="Between two looks. Default: 2, with --once 1.",
)
@click.option(
    "--rounds",
    "-n",
    type=click.IntRange(1),
    default=None,
    metavar="N",
    help="End after so many. Default: at q or Ctrl-C.",
)
@click.option("--once", is_flag=True, help="Print one look, and end.")
@click.option(
    "--lines",
    type=click.IntRange(1),
    default=20,
    metavar="N",
    help="So many processes with --once. Default: 20.",
)
@json_option
def top(
    given: Sequence[Sequence[str]],
    sort: str,
    delay: float | None,
    rounds: int | None,
    once: bool,
    lines: int,
    as_json: bool,
) -> None:
    """Watch rates of tasks, nodes and processes, as top(1) does for a machine.

    Nodes look at their processes only while somebody watches. --json prints a line for each look;
    without -n one.

    Exit code 0: done; 1: the head cannot be reached; 130: Ctrl-C.
    """
    from zray.cli import top as view

    every_s = delay if delay is not None else 1.0 if once or as_json else 2.0
    heads = options.heads(given)
    sys.exit(view.show(heads, sort, every_s, rounds or 0, once=once, as_json=as_json, lines=lines))


@click.command()
@options.address_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def envs(given: Sequence[Sequence[str]], as_json: bool) -> None:
    """Show the runtime environments that nodes have built, are building, or could not build.

    What nobody uses stays until all of a node together take more than their bound.

    Exit code 0: that is what there is; 1: the head cannot be reached.
    """
    from zray.cli import environments as view

    sys.exit(view.show(options.heads(given), as_json=as_json))


COMMANDS = (memory, top, envs)
