"""``zray job``: submit a shell command to a cluster, follow and stop it. Options only.

Must never import zmq before a command runs: help stays fast, and so does completion.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from zray.cli import options

Command = TypeVar("Command", bound=Callable[..., Any])


def json_object(text: str) -> dict[str, Any]:
    """What the option says.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f'it must be a JSON object, as in {{"a": 1}}, not {text[:100]!r}')
    return found


_OBJECT = options.checked(json_object)
_address = click.option(
    "--address",
    metavar="ADDRESS",
    help="The head (HOST:PORT) or its page (http://HOST:PORT). Default: ZRAY_API_SERVER_ADDRESS, "
    "RAY_API_SERVER_ADDRESS, ZRAY_ADDRESS, RAY_ADDRESS, or the head on this machine.",
)
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")
_id = click.argument("job_id", metavar="JOB")


def _described(command: Command) -> Command:
    command.__doc__ = (
        f"{command.__doc__}\n    Exit code 0: done; 1: there is no such job, it cannot be done, or "
        "the head cannot be reached.\n    "
    )
    return command


@click.group()
def job() -> None:
    """Run shell commands on a cluster: they outlive whoever has submitted them.

    JOB is a submission id, or the id of the job of a driver.
    """


@job.command()
@_address
@click.option("--submission-id", metavar="ID", help="Of the job. Default: one that is made up.")
@click.option("--job-id", "older_id", hidden=True)
@click.option(
    "--runtime-env",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="A runtime_env in a file of YAML or JSON.",
)
@click.option("--runtime-env-json", type=_OBJECT, metavar="JSON", help="A runtime_env.")
@click.option(
    "--working-dir",
    metavar="DIRECTORY",
    help="Where the command runs: it is sent along. Counts before that of the runtime_env.",
)
@click.option("--metadata-json", type=_OBJECT, metavar="JSON", help="Texts to keep with the job.")
@click.option(
    "--entrypoint-num-cpus",
    type=float,
    metavar="N",
    help="CPUs of the command itself. Without any such option it runs on the head's node.",
)
@click.option("--entrypoint-num-gpus", type=float, metavar="N", help="GPUs of it.")
@click.option("--entrypoint-memory", type=int, metavar="BYTES", help="Memory of it.")
@click.option("--entrypoint-resources", type=_OBJECT, metavar="JSON", help="Other resources.")
@click.option("--entrypoint-label-selector", type=_OBJECT, metavar="JSON", help="Labels of a node.")
@click.option("--no-wait", is_flag=True, help="Return at once, and do not show what it prints.")
@_json
@click.argument("entrypoint", nargs=-1, required=True, type=click.UNPROCESSED)
def submit(
    address: str | None,
    submission_id: str | None,
    older_id: str | None,
    runtime_env: Path | None,
    runtime_env_json: dict[str, Any] | None,
    working_dir: str | None,
    metadata_json: dict[str, Any] | None,
    entrypoint_num_cpus: float | None,
    entrypoint_num_gpus: float | None,
    entrypoint_memory: int | None,
    entrypoint_resources: dict[str, Any] | None,
    entrypoint_label_selector: dict[str, Any] | None,
    no_wait: bool,
    as_json: bool,
    entrypoint: Sequence[str],
) -> None:
    """Submit a command, as in zray job submit -- python program.py.

    What it prints is shown until it has ended; Ctrl-C ends that, and not the job.

    Exit code 0: it was submitted, and with waiting has not failed; 1: it has failed, or could not
    be submitted.
    """
    if runtime_env is not None and runtime_env_json is not None:
        raise click.UsageError("give only one of --runtime-env and --runtime-env-json")
    from zray.cli import job_commands

    chosen = {
        "entrypoint_num_cpus": entrypoint_num_cpus,
        "entrypoint_num_gpus": entrypoint_num_gpus,
        "entrypoint_memory": entrypoint_memory,
        "entrypoint_resources": entrypoint_resources,
        "entrypoint_label_selector": entrypoint_label_selector,
        "metadata": metadata_json,
        "submission_id": submission_id or older_id,
        "entrypoint": shlex.join(entrypoint),
    }
    environment = job_commands.environment(runtime_env, runtime_env_json, working_dir)
    sys.exit(job_commands.submit(address, environment, chosen, wait=not no_wait, as_json=as_json))


@job.command()
@_address
@_json
@_id
@_described
def status(address: str | None, as_json: bool, job_id: str) -> None:
    """Show how far a job is, and what it says of that."""
    from zray.cli import job_commands

    sys.exit(job_commands.status(address, job_id, as_json=as_json))


@job.command()
@_address
@click.option("--no-wait", is_flag=True, help="Return at once, and not when it has ended.")
@_json
@_id
@_described
def stop(address: str | None, no_wait: bool, as_json: bool, job_id: str) -> None:
    """End a job: SIGTERM to all its processes, and SIGKILL to those that are there after 3 s."""
    from zray.cli import job_commands

    sys.exit(job_commands.stop(address, job_id, wait=not no_wait, as_json=as_json))


@job.command()
@_address
@_json
@_id
@_described
def delete(address: str | None, as_json: bool, job_id: str) -> None:
    """Forget a job that has ended."""
    from zray.cli import job_commands

    sys.exit(job_commands.delete(address, job_id, as_json=as_json))


@job.command()
@_address
@click.option("--follow", "-f", is_flag=True, help="Go on as it grows, until the job has ended.")
@_json
@_id
@_described
def logs(address: str | None, follow: bool, as_json: bool, job_id: str) -> None:
    """Show what a job's command has printed; of more than 16 MiB without --follow, the end."""
    if follow and as_json:
        raise click.UsageError("give only one of --follow and --json")
    from zray.cli import job_commands

    sys.exit(job_commands.logs(address, job_id, follow=follow, as_json=as_json))


@job.command(name="list")
@_address
@_json
@_described
def list_(address: str | None, as_json: bool) -> None:
    """List jobs: those that were submitted, and programs that have connected by themselves."""
    from zray.cli import job_commands

    sys.exit(job_commands.show_all(address, as_json=as_json))
