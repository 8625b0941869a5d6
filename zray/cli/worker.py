"""The ``zray-worker`` command. Options and messages only: the node is `zray.nodes.raylet`."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from zray import limits
from zray._version import __version__
from zray.cli import daemon, entry, options

PROGRAM = "zray-worker"


@click.command(PROGRAM, context_settings={"max_content_width": 100})
@options.address_option
@click.option(
    "--name", type=options.name, metavar="NAME", help="The node's name. Default: the host's."
)
@options.resource_options
@options.store_options
@options.import_option
@click.option(
    "--log-directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the output of its workers is kept; what is empty is removed. "
    "Default: nodes/NAME-PID in ZRAY_HOME or ~/.zray.",
)
@click.option(
    "--wait",
    "wait_s",
    type=options.seconds,
    default=limits.HEAD_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a head that is not up yet.",
)
@click.option("--detach", is_flag=True, help="Return when READY, with pid and log.")
@click.version_option(__version__, message="%(prog)s %(version)s")
def command(
    given: Sequence[Sequence[str]],
    name: str | None,
    log_directory: Path | None,
    wait_s: float,
    detach: bool,
    **offered: Any,
) -> None:
    """Join a cluster: offer this machine's CPUs, GPUs and memory to its head.

    Runs in the foreground until it is stopped or its cluster is. Ctrl-C stops it cleanly, twice
    at once. Where the head goes away, it waits for its return and then goes on.
    """
    daemon.check_platform(PROGRAM)
    from zray.errors import ZrayError

    options.warn_of_cpus(PROGRAM, offered["num_cpus"])
    logs = log_directory.absolute() if log_directory is not None else None
    heads = options.heads(given)
    ready_fd = None
    try:
        if detach:
            ready_fd = daemon.detach(PROGRAM, lambda: _logs(logs, name) / "worker.log", wait_s)
        else:
            daemon.hangup_is_stop()
        _serve(heads, name, _logs(logs, name), offered, ready_fd, wait_s)
    except (ZrayError, ValueError, OSError) as error:
        daemon.fail(PROGRAM, error, ready_fd)


def _logs(chosen: Path | None, name: str | None) -> Path:
    """The directory for logs of this very process; a default one is made."""
    if chosen is not None:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        return chosen
    from zray.runtime import connection
    from zray.runtime.keys import secret_directory

    directory = f"{name or socket.gethostname()}-{os.getpid()}"
    return secret_directory(connection.home() / "nodes" / directory)


def _serve(
    heads: list[str],
    name: str | None,
    logs: Path,
    offered: dict[str, Any],
    ready_fd: int | None,
    wait_s: float,
) -> None:
    from zray.nodes.options import NodeOptions
    from zray.nodes.raylet import raylet
    from zray.runtime import service
    from zray.runtime.linux.processes import set_process_name

    set_process_name(PROGRAM)
    service.declare()
    node = NodeOptions(name=name or "", log_directory=logs, **offered)

    def on_ready(text: str) -> None:
        daemon.ready(f"zray {text}", ready_fd)
        service.tell(READY=1, STATUS=text)

    def on_wait(text: str) -> None:
        daemon.note(PROGRAM, text, ready_fd)
        service.tell(STATUS=text)

    raylet.serve(node, heads, on_ready, wait_s, on_wait)


def main() -> None:
    """Entry of the console script."""
    entry.run(command, PROGRAM)


if __name__ == "__main__":
    main()
