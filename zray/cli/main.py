"""The ``zray`` command: look at a cluster, ask why something waits, stop it. Options only.

Must never import zmq before a subcommand runs: help stays fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from zray._version import __version__
from zray.cli import (
    entry,
    figures,
    gcs,
    head_commands,
    job,
    listing,
    metrics,
    operations,
    options,
    rerunning,
    systemd_unit,
)


@click.group(context_settings={"max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def command() -> None:
    """Look at zray clusters, operate and stop them.

    zray-head starts a cluster, and zray-worker adds a machine to it.
    """


@command.command()
@options.address_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(given: Sequence[Sequence[str]], as_json: bool) -> None:
    """Show nodes, resources, jobs, and what waits and why.

    Exit code 0: all is well; 1: nodes are missing or the head is recovering; 2: the head cannot be
    reached.
    """
    from zray.cli.status import show

    sys.exit(show(options.heads(given), as_json))


@command.command()
@options.address_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("things", type=options.thing, nargs=-1, required=True, metavar="ID...")
def why(given: Sequence[Sequence[str]], as_json: bool, things: Sequence[str]) -> None:
    """Say why something waits, failed or is as it is, what is behind that, and what would help.

    ID is that of an object (ref.hex() and repr(ref) show it), task, actor, node, worker or job, or
    the name of a node or an actor.

    Exit code 0: there is such a thing; 1: it is not known, or the head cannot be reached.
    """
    from zray.cli.why import explain

    sys.exit(explain(options.heads(given), [*things], as_json))


@command.command()
@options.address_option
@click.option("--no-browser", is_flag=True, help="Print the link, and open nothing.")
@click.option(
    "--token",
    is_flag=True,
    help="Print what scripts say in the header Authorization: Bearer. It is as good as the "
    "cluster's key: keep it in a file that only you can read.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs; opens nothing.")
def dashboard(given: Sequence[Sequence[str]], no_browser: bool, token: bool, as_json: bool) -> None:
    """Open the cluster's page in a browser, logged in.

    The link is good for one login within a minute, and the login for 12 hours. Without a screen
    the link is printed.

    Exit code 0: done; 1: there is no such page, or the head cannot be reached.
    """
    from zray.cli.dashboard import run

    sys.exit(run(options.heads(given), browser=not no_browser, token=token, as_json=as_json))


@command.command()
@click.option(
    "--name", type=options.name, metavar="NAME", help="The cluster's name. Default: default."
)
@click.option(
    "--data-directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Stop the cluster whose head uses this directory.",
)
@click.option(
    "--address",
    type=options.addresses,
    metavar="HOST:PORT",
    help="Stop the cluster of the head at this address; of several heads with commas.",
)
def stop(name: str | None, data_directory: Path | None, address: list[str] | None) -> None:
    """Stop one whole cluster: its head and all its nodes, here and elsewhere.

    Exit code 0: it has stopped, or nothing ran; 1: it could not be stopped.
    """
    if sum(option is not None for option in (name, data_directory, address)) > 1:
        raise click.UsageError("give only one of --name, --data-directory and --address")
    from zray.cli import stop as stopping

    if address is not None:
        sys.exit(stopping.stop_at(address))
    if data_directory is not None:
        sys.exit(stopping.stop_directory(data_directory))
    sys.exit(stopping.stop_named(name or "default"))


@command.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT.py [ARGUMENTS]")
def run(arguments: Sequence[str]) -> None:
    """Run a program that was written for Ray, with zray in its place.

    "import ray" gives zray in it and in its tasks and actors. With -m MODULE in place of SCRIPT.py
    it runs a module, as python does.

    Exit code: the program's own.
    """
    if not arguments:
        raise click.UsageError("give a script, or -m and a module")
    # Another process image: the program sees nothing of this one.
    os.execv(sys.executable, [sys.executable, "-m", "zray.compat", *arguments])


@command.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete zray's commands and options.

    bash: zray completion bash > ~/.zray-complete; then in ~/.bashrc: . ~/.zray-complete.
    zsh: the same with zsh, in ~/.zshrc. fish: zray completion fish >
    ~/.config/fish/completions/zray.fish.

    Exit code 0.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(command, {}, "zray", "_ZRAY_COMPLETE").source())


for _one in (
    *listing.COMMANDS,
    *operations.COMMANDS,
    *rerunning.COMMANDS,
    *figures.COMMANDS,
    metrics.metrics,
    job.job,
    head_commands.head,
    systemd_unit.systemd_unit,
    gcs.gcs,
):
    command.add_command(_one)


def main() -> None:
    """Entry of the console script."""
    entry.run(command, "zray")


if __name__ == "__main__":
    main()
