"""The commands that reach a running process or a node: options only.

Must never import zmq before a command runs: help stays fast, and so does completion.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from zray import limits
from zray.cli import options

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
EXIT_CODES = "Exit code 0: done; 1: not found, refused, or the head cannot be reached."


# What Python shows of references and handles, and ids in capitals.
_REFERENCE = re.compile(
    r"(?:ObjectRef\(|Actor\(\w*,? ?)?([0-9a-f]{32})(?:[0-9a-f]{8})?(?:,.*)?\)?", re.IGNORECASE
)


def word(text: str) -> str:
    """An id, a name or a pid.

    Raises:
        ValueError: it is empty, or too long to be one.
    """
    if not text.strip() or len(text) > limits.NAME_MAX:
        raise ValueError(f"give an id, a name or a pid, of at most {limits.NAME_MAX} characters")
    found = _REFERENCE.fullmatch(text.strip())
    return found[1].lower() if found is not None else text.strip()


_WORD = options.checked(word)


def _described(command: Command) -> Command:
    command.__doc__ = f"{command.__doc__}\n    {EXIT_CODES}\n    "
    return command


@click.command()
@options.address_option
@click.argument("what", type=_WORD, required=False, metavar="[ID|NAME|PID]")
@click.option("--task", type=_WORD, metavar="ID", help="What the task has printed.")
@click.option("--actor", type=_WORD, metavar="ID|NAME", help="The log of an actor.")
@click.option("--worker", type=_WORD, metavar="ID|PID", help="The log of a worker.")
@click.option("--node", type=_WORD, metavar="NAME|ID", help="The log of a node's daemon.")
@click.option("--head", is_flag=True, help="The log of the head.")
@click.option("--job", type=_WORD, metavar="ID", help="The logs of all workers of a job.")
@click.option("--follow", "-f", is_flag=True, help="Go on as it grows, until Ctrl-C.")
@click.option(
    "--tail",
    type=click.IntRange(0, 10_000_000),
    metavar="N",
    help="The last N lines. Default: all, or 10 with --job.",
)
@json_option
@_described
def logs(
    given: Sequence[Sequence[str]],
    what: str | None,
    task: str | None,
    actor: str | None,
    worker: str | None,
    node: str | None,
    head: bool,
    job: str | None,
    follow: bool,
    tail: int | None,
    as_json: bool,
) -> None:
    """Show the log of a worker, actor, node or the head, from any machine that has the key.

    Without a process: which logs there are. They come from the node that keeps them, by way of the
    head, as fast as they are read here.

    """
    chosen = {"task": task, "actor": actor, "worker": worker, "node": node, "job": job}
    asked = [(kind, one) for kind, one in chosen.items() if one is not None]
    asked += [("", what)] if what is not None else []
    asked += [("head", "head")] if head else []
    if len(asked) > 1:
        raise click.UsageError(
            "name one process: an ID, --task, --actor, --worker, --node, --head or --job"
        )
    if not asked and (follow or tail is not None):
        raise click.UsageError(
            "say whose log: an ID, --task, --actor, --worker, --node, --head or --job"
        )
    from zray.cli import logs as showing

    kind, name = asked[0] if asked else ("", "")
    heads = options.heads(given)
    sys.exit(showing.show(heads, kind, name, follow=follow, tail=tail, as_json=as_json))


@click.command()
@options.address_option
@click.argument("what", type=_WORD, default="head", metavar="[ID|NAME|PID|NODE|head]")
@json_option
@_described
def stack(given: Sequence[Sequence[str]], what: str, as_json: bool) -> None:
    """Show where the threads of a process are now. Default: of the head.

    Of a worker, or what runs a task or is an actor; of a node's daemon; of the head. py-spy reads
    it on the node of the process (pip install "zray[profile]"); a worker without it tells itself.

    """
    from zray.cli import examine

    sys.exit(examine.stack(options.heads(given), what, as_json=as_json))


@click.command()
@options.address_option
@click.argument("what", type=_WORD, metavar="ID|NAME|PID|NODE|head")
@click.option(
    "--seconds",
    type=click.IntRange(1, int(limits.PROFILE_S_MAX)),
    default=10,
    show_default=True,
    metavar="N",
    help="For how long it is looked at, 100 times a second.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("profile.svg"),
    show_default=True,
    metavar="FILE.svg",
    help="Where the flame graph goes; - for stdout.",
)
@json_option
@_described
def profile(
    given: Sequence[Sequence[str]], what: str, seconds: int, output: Path, as_json: bool
) -> None:
    """Record where a process spends its time, as a flame graph that a browser shows.

    py-spy does it on the node of the process (pip install "zray[profile]" there). The process goes
    on meanwhile, a little slower.

    """
    from zray.cli import examine

    sys.exit(examine.profile(options.heads(given), what, seconds, output, as_json=as_json))


@click.command()
@options.address_option
@click.argument("what", type=_WORD, metavar="TASK|ACTOR|WORKER")
@json_option
@_described
def kill(given: Sequence[Sequence[str]], what: str, as_json: bool) -> None:
    """End a task, an actor for good, or a worker's process.

    A task ends as with zray.cancel(force=True), and is not tried again. What a worker ran when it
    was killed is tried again as its retries allow.

    """
    from zray.cli import control

    sys.exit(control.kill(options.heads(given), what, as_json=as_json))


@click.command()
@options.address_option
@click.argument("node", type=_WORD, metavar="NODE")
@click.option(
    "--deadline",
    "deadline_s",
    type=options.Between(1.0, limits.DRIVER_LOST_MAX_S),
    metavar="SECONDS",
    help="The node leaves then at the latest, with what it has. Default: it may take any time.",
)
@click.option("--reason", default="", metavar="TEXT", help="Shown to whoever asks.")
@click.option("--wait", is_flag=True, help="Return when the node has left.")
@json_option
@_described
def drain(
    given: Sequence[Sequence[str]],
    node: str,
    deadline_s: float | None,
    reason: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Empty a node, and have it leave the cluster.

    It takes no more work and gives back what has not started. What runs may end; actors that may
    restart do so elsewhere; objects that only it has are copied to other nodes. Then it leaves.
    zray status shows what it still waits for. Once more: with another deadline.

    """
    if len(reason) > limits.INCIDENT_TEXT_MAX:
        raise click.UsageError(f"--reason takes {limits.INCIDENT_TEXT_MAX} characters")
    from zray.cli import control

    heads = options.heads(given)
    sys.exit(control.drain(heads, node, deadline_s or 0.0, reason, wait=wait, as_json=as_json))


@click.command()
@options.address_option
@click.argument(
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("timeline.json"),
    metavar="[FILE.json]",
)
@click.option(
    "--seconds",
    "-s",
    type=options.Between(0.1, limits.RECORD_S_MAX - limits.QUESTION_S),
    default=None,
    metavar="N",
    help="Record for so long first: when each task was submitted, waited and got its arguments.",
)
@json_option
@_described
def timeline(
    given: Sequence[Sequence[str]], path: Path, seconds: float | None, as_json: bool
) -> None:
    """Write what has run lately on all nodes, for ui.perfetto.dev or chrome://tracing.

    Workers remember their last 1,000 tasks and calls, nodes those of workers that have ended in
    peace; each node tells its last 10,000. FILE.json is timeline.json unless it is given; - is
    stdout.

    """
    from zray.cli import timeline as tracing

    heads = options.heads(given)
    sys.exit(tracing.write(heads, path, seconds or 0.0, as_json=as_json))


class _DebugGroup(click.Group):
    """A word that is no command of it stands for a breakpoint."""

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if words[0] not in self.commands and not words[0].startswith("-"):
            words = ["attach", *words]
        return super().resolve_command(context, words)


@click.group(cls=_DebugGroup, invoke_without_command=True)
@options.address_option
@json_option
@click.pass_context
def debug(context: click.Context, given: Sequence[Sequence[str]], as_json: bool) -> None:
    """List the breakpoints in tasks and actors that wait; zray debug N attaches to one.

    A task that calls breakpoint() waits there, as what raises does where ZRAY_DEBUG_POST_MORTEM=1
    is in its environment.

    Exit code 0: done; 2: not possible, which is said.
    """
    if context.invoked_subcommand is None:
        from zray.cli import debug as debugging

        sys.exit(debugging.run(options.heads(given), None, as_json=as_json))


@debug.command()
@click.argument("which", metavar="N|TASK|PID")
@options.address_option
@click.pass_context
def attach(context: click.Context, given: Sequence[Sequence[str]], which: str) -> None:
    """Attach to a breakpoint: its number in the list, its task's id or its pid.

    Attached, you have pdb's commands: c goes on, q ends the task with an error, Ctrl-D leaves it
    waiting for whoever attaches next.

    Exit code 0: done; 2: not possible, which is said.
    """
    from zray.cli import debug as debugging

    before = context.parent.params["given"] if context.parent is not None else ()
    sys.exit(debugging.run(options.heads([*before, *given]), which, as_json=False))


@debug.command()
@options.address_option
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.tar.gz",
    help="Default: zray-dump-TIME.tar.gz in this directory.",
)
@json_option
@_described
def dump(given: Sequence[Sequence[str]], output: Path | None, as_json: bool) -> None:
    """Collect what a fault report needs in one file: status, logs' ends, versions, stacks.

    Keys and values of environment variables are not in it. What tasks have printed is: look through
    it before you give it away.

    """
    from zray.cli import debug_dump

    sys.exit(debug_dump.dump(options.heads(given), output, as_json=as_json))


COMMANDS: tuple[click.Command, ...] = (*(logs, stack, profile, timeline, kill, drain, debug),)
