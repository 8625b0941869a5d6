"""``zray list``, ``zray get`` and ``zray summary``: their options.

Must never import zmq or rich before one of them runs: help stays fast.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from zray.cli import options

KINDS: Final = (
    *("tasks", "actors", "objects", "nodes", "workers", "jobs", "placement_groups", "events"),
)
SUMMARIES: Final = ("tasks", "actors", "objects")
_FILTER: Final = re.compile(r"\s*(\w+)\s*(!?=)\s*(.*?)\s*", re.DOTALL)
WATCH_S: Final = 2.0


class Kind(click.Choice[str]):
    """One of the kinds, in the plural or the singular."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower().replace("cluster-events", "events").replace("-", "_")
        return super().convert(text if text.endswith("s") else f"{text}s", param, ctx)


@options.checked
def one_filter(text: str) -> tuple[str, str, str]:
    """``key=value`` or ``key!=value``."""
    found = _FILTER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not key=value or key!=value, as in state=FAILED")
    key, predicate, value = found.groups()
    return key, predicate, value


def _json(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="For programs.")(command)


def _watch(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--watch",
        type=options.Between(min=0.1),
        is_flag=False,
        flag_value=WATCH_S,
        metavar="SECONDS",
        help=f"Again and again, every {WATCH_S:g} seconds or as often as given, until Ctrl-C.",
    )(command)


@click.command("list")
@click.argument("kind", type=Kind(KINDS))
@click.option(
    "--filter",
    "filters",
    type=one_filter,
    multiple=True,
    metavar="KEY=VALUE",
    help="Only those; or KEY!=VALUE. Several: all of them hold. An unknown KEY shows which there "
    "are.",
)
@click.option("--limit", type=click.IntRange(min=1), default=100, help="At most. Default: 100.")
@click.option("--detail", is_flag=True, help="All that is known of each.")
@_json
@_watch
@options.address_option
def list_(
    kind: str,
    filters: Sequence[tuple[str, str, str]],
    limit: int,
    detail: bool,
    as_json: bool,
    watch: float | None,
    given: Sequence[Sequence[str]],
) -> None:
    """List tasks, actors, objects, nodes, workers, jobs, placement-groups or events.

    Exit code 0: that is what there is; 2: the head cannot be reached, or there is no such filter.
    """
    from zray.cli import state_view

    view = state_view.ListView(kind, [*filters], limit, detail=detail)
    sys.exit(state_view.show(view, options.heads(given), as_json=as_json, watch_s=watch))


@click.command()
@click.argument("kind", type=Kind(KINDS[:-1]))
@click.argument("id_", metavar="ID")
@_json
@_watch
@options.address_option
def get(
    kind: str, id_: str, as_json: bool, watch: float | None, given: Sequence[Sequence[str]]
) -> None:
    """Show all that is known of one thing. ID is what lists show, in full.

    Exit code 0: it is known; 1: it is not; 2: the head cannot be reached.
    """
    from zray.cli import state_view

    view = state_view.GetView(kind, id_)
    sys.exit(state_view.show(view, options.heads(given), as_json=as_json, watch_s=watch))


@click.command()
@click.argument("kind", type=Kind(SUMMARIES))
@_json
@_watch
@options.address_option
def summary(kind: str, as_json: bool, watch: float | None, given: Sequence[Sequence[str]]) -> None:
    """Count tasks by name, actors by class or objects by what holds them, and by state.

    Exit code 0: that is what there is; 2: the head cannot be reached.
    """
    from zray.cli import state_view

    view = state_view.SummaryView(kind)
    sys.exit(state_view.show(view, options.heads(given), as_json=as_json, watch_s=watch))


COMMANDS = (list_, get, summary)
