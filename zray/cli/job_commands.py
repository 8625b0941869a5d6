"""What ``zray job`` does: a client of the cluster's jobs, and how they are shown."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from zray.cli import reporting
from zray.cli.entry import INTERRUPTED
from zray.cli.reporting import Failed
from zray.cli.status import table
from zray.core.causes import plain
from zray.errors import ZrayError
from zray.jobs.client import JobSubmissionClient
from zray.jobs.details import JobDetails, JobStatus, JobType

LOOK_S = 0.2
ENTRYPOINT_SHOWN = 60
_HEADER = ["JOB", "TYPE", "STATUS", "STARTED", "TOOK", "COMMAND"]


@contextlib.contextmanager
def _client(address: str | None, as_json: bool) -> Iterator[JobSubmissionClient]:
    """As ``reporting.operator``."""
    try:
        yield JobSubmissionClient(address)
    except BrokenPipeError:  # who reads it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ZrayError, OSError, ValueError, TypeError) as error:
        if as_json:
            code = getattr(error, "code", "")
            print(json.dumps({"error": {"code": code, "message": str(error)}}, indent=2))
        else:
            print(f"zray: {plain(str(error))}", file=sys.stderr)
        raise Failed from None


def environment(
    file: Path | None, given: dict[str, Any] | None, working_dir: str | None
) -> dict[str, Any]:
    """The runtime_env of the options.

    Raises:
        click.BadParameter: the file has none.
    """
    found = dict(given or {})
    if file is not None:
        found = _read(file)
    if working_dir is not None:
        found["working_dir"] = working_dir
    return found


def _read(file: Path) -> dict[str, Any]:
    text = file.read_text("utf-8", "replace")
    try:
        found = json.loads(text)
    except RecursionError:
        found = None
    except ValueError:
        try:
            yaml = importlib.import_module("yaml")  # who writes YAML has it
        except ImportError:
            raise click.BadParameter(
                f"{file} is no JSON, and to read YAML pyyaml must be installed"
            ) from None
        try:
            found = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise click.BadParameter(f"{file} is neither JSON nor YAML: {error}") from None
    if not isinstance(found, dict):
        raise click.BadParameter(f"{file} has no runtime_env, which is a mapping")
    return found


# ---- commands ------------------------------------------------------------------------------


def submit(
    address: str | None,
    runtime_env: dict[str, Any],
    chosen: dict[str, Any],
    *,
    wait: bool,
    as_json: bool,
) -> int:
    """Submit a job, and follow it if wanted; the exit code."""
    job_id, failed = "", False
    try:
        with _client(address, as_json) as client:
            job_id = client.submit_job(runtime_env=runtime_env or None, **chosen)
            if not as_json:
                _say_submitted(job_id, wait)
            if wait:
                details = _follow(client, job_id, quiet=as_json)
                failed = details.status == JobStatus.FAILED
            if as_json:
                reporting.show(details.dict() if wait else {"submission_id": job_id})
    except KeyboardInterrupt:
        if job_id:
            print(f"\nJob '{job_id}' goes on; zray job stop {job_id} ends it", file=sys.stderr)
        return INTERRUPTED
    except Failed:
        return 1
    return 1 if failed else 0


def _say_submitted(job_id: str, wait: bool) -> None:
    print(f"Job '{job_id}' submitted successfully\n\nNext steps")
    for what, word in (("logs", "logs"), ("status", "status"), ("stop", "stop")):
        print(f"  {what + ':':8} zray job {word} {job_id}")
    if wait:
        print("\nTailing logs until the job exits (disable with --no-wait):")
    sys.stdout.flush()


def status(address: str | None, job_id: str, *, as_json: bool) -> int:
    """Show one job; the exit code."""
    try:
        with _client(address, as_json) as client:
            details = client.get_job_info(job_id)
            if as_json:
                reporting.show(details.dict())
            else:
                _say_status(job_id, details)
    except Failed:
        return 1
    return 0


def _say_status(job_id: str, details: JobDetails) -> None:
    words = {JobStatus.SUCCEEDED: "succeeded", JobStatus.FAILED: "failed"}
    words[JobStatus.STOPPED] = "was stopped"
    word = words.get(details.status)
    name = plain(job_id)
    print(f"Job '{name}' {word}" if word else f"Status for job '{name}': {details.status}")
    if details.message and details.status not in (JobStatus.SUCCEEDED, JobStatus.STOPPED):
        print(f"Status message: {reporting.harmless(details.message)}")


def stop(address: str | None, job_id: str, *, wait: bool, as_json: bool) -> int:
    """Stop one job; the exit code."""
    try:
        with _client(address, as_json) as client:
            stopped = client.stop_job(job_id)
            if not as_json and not stopped:
                print(f"Job '{plain(job_id)}' had ended already")
            elif not as_json:
                print(f"Attempting to stop job '{plain(job_id)}'")
            details = client.get_job_info(job_id)
            while wait and not details.status.is_terminal():
                time.sleep(LOOK_S)
                details = client.get_job_info(job_id)
            if as_json:
                reporting.show({"stopped": stopped, "status": details.status.value})
            elif wait:
                _say_status(job_id, details)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Failed:
        return 1
    return 0


def delete(address: str | None, job_id: str, *, as_json: bool) -> int:
    """Forget one job; the exit code."""
    try:
        with _client(address, as_json) as client:
            deleted = client.delete_job(job_id)
            if as_json:
                reporting.show({"deleted": deleted})
            else:
                print(f"Job '{plain(job_id)}' deleted successfully")
    except Failed:
        return 1
    return 0


def logs(address: str | None, job_id: str, *, follow: bool, as_json: bool) -> int:
    """Show what a job has printed; the exit code."""
    try:
        with _client(address, as_json) as client:
            if follow:
                _follow(client, job_id, quiet=False)
            elif as_json:
                reporting.show({"logs": client.get_job_logs(job_id)})
            else:
                _write(client.get_job_logs(job_id))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Failed:
        return 1
    return 0


def _follow(client: JobSubmissionClient, job_id: str, *, quiet: bool) -> JobDetails:
    """Until it has ended; what it is then."""
    for piece in client.follow(job_id):
        if piece and not quiet:
            _write(piece)
    details = client.get_job_info(job_id)
    if not quiet:
        _say_status(job_id, details)
    return details


def _write(text: str) -> None:
    sys.stdout.write(reporting.harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def show_all(address: str | None, *, as_json: bool) -> int:
    """List jobs; the exit code."""
    try:
        with _client(address, as_json) as client:
            found = client.list_jobs()
            if as_json:
                reporting.show([one.dict() for one in found])
            elif found:
                rows = [_row(one) for one in found]
                print("\n".join(line.removeprefix("  ") for line in table(_HEADER, rows)))
            else:
                print("There are no jobs. Submit one with: zray job submit -- COMMAND")
    except Failed:
        return 1
    return 0


def _row(one: JobDetails) -> list[str]:
    began, ended = one.start_time or 0, one.end_time or int(time.time() * 1000)
    command = " ".join(one.entrypoint.split())
    if len(command) > ENTRYPOINT_SHOWN:
        command = f"{command[: ENTRYPOINT_SHOWN - 3]}..."
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began / 1000)) if began else ""
    word = "submitted" if one.type == JobType.SUBMISSION else "driver"
    took = f"{max(0, ended - began) / 1000:.1f} s" if began else ""
    return [one.submission_id or one.job_id or "", word, str(one.status), started, took, command]
