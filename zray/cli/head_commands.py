"""The ``zray head`` commands, about the heads of a cluster that has several: options only.

Must never import zmq before a command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from zray import limits
from zray.cli import options
from zray.cli.operations import EXIT_CODES, json_option


@click.group()
def head() -> None:
    """The heads of a cluster: one leads, the others stand by. zray status shows them."""


@head.command("step-down")
@options.address_option
@click.option("--reason", default="", metavar="TEXT", help="Shown to whoever asks.")
@json_option
def step_down(given: Sequence[Sequence[str]], reason: str, as_json: bool) -> None:
    """Let another head lead, such as before work on the machine of the one that does.

    All goes on meanwhile, and the former leader stands by. Refused where no other head is there:
    start one first, with the same --store and cluster.key.

    """
    if len(reason) > limits.INCIDENT_TEXT_MAX:
        raise click.UsageError(f"--reason takes {limits.INCIDENT_TEXT_MAX} characters")
    from zray.cli import heads

    sys.exit(heads.step_down(options.heads(given), reason, as_json=as_json))


step_down.help = f"{step_down.help}\n\n{EXIT_CODES}"
