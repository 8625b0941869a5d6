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


COMMANDS: tuple[click.Command, ...] = (replay,)
