"""Whatever dies, no job says RUNNING for ever: submitter, head, node, supervisor, command."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

import psutil

from zray.job_submission import JobStatus


def runner_of(jobs: Any) -> psutil.Process:
    """That of the only job."""
    for pid in jobs.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if any(part.endswith("job_runner.py") for part in process.cmdline()):
                return process
    raise AssertionError("there is no runner")


def supervisor_of(jobs: Any) -> psutil.Process:
    """Its worker."""
    return runner_of(jobs).parent()


def begun(jobs: Any, entrypoint: str = "echo began; sleep 60", **more: Any) -> str:
    job: str = jobs.submit_job(entrypoint=entrypoint, **more)
    jobs.says(job, "began")
    return job


def test_a_job_outlives_its_submitter_and_a_head_that_is_killed(
    own: Any, own_jobs: Any, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    program = own.run(
        "submits",
        f"""
        from zray.job_submission import JobSubmissionClient
        JobSubmissionClient().submit_job(
            entrypoint="echo began; while [ ! -e {go} ]; do sleep 0.05; done; echo ended",
            submission_id="lasting",
        )
        """,
    )
    assert program.wait(20) == 0
    own_jobs.says("lasting", "began")
    runner = runner_of(own_jobs)
    address = own.address
    own.head.kill()
    own.start_head(port=-1)
    own.address = address
    assert own_jobs.get_job_status("lasting") == JobStatus.RUNNING and runner.is_running()
    go.touch()
    assert own_jobs.until("lasting", timeout_s=40).status == JobStatus.SUCCEEDED
    assert own_jobs.get_job_logs("lasting") == "began\nended\n"


def test_one_that_waits_has_its_folder_after_a_restart_of_the_head(
    own: Any, own_jobs: Any, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "small.txt").touch()
    own.start_node("one", 1)
    first = begun(own_jobs, entrypoint_num_cpus=1)
    second = own_jobs.submit_job(
        entrypoint="ls",
        runtime_env={"working_dir": str(tmp_path / "folder")},
        entrypoint_num_cpus=1,
    )
    address = own.address
    own.head.kill()
    own.start_head(port=-1)
    own.address = address
    assert own_jobs.get_job_status(second) == JobStatus.PENDING
    assert own_jobs.stop_job(first)
    assert own_jobs.until(second, timeout_s=40).status == JobStatus.SUCCEEDED
    assert own_jobs.get_job_logs(second) == "small.txt\n"


def test_a_command_that_ends_while_no_head_is_there(own: Any, own_jobs: Any) -> None:
    job = begun(own_jobs, "echo began; sleep 0.5; exit 7")
    runner = runner_of(own_jobs)
    address = own.address
    own.head.kill()
    psutil.wait_procs([runner], 20)
    assert not runner.is_running()
    own.start_head(port=-1)
    own.address = address
    found = own_jobs.until(job, timeout_s=40)
    assert (found.status, found.driver_exit_code) == (JobStatus.FAILED, 7)


def test_a_supervisor_that_is_killed(own_jobs: Any) -> None:
    job = begun(own_jobs)
    supervisor_of(own_jobs).kill()
    found = own_jobs.until(job)
    assert (found.status, found.error_type) == (JobStatus.FAILED, "JOB_SUPERVISOR_ACTOR_DIED")
    assert own_jobs.nothing_is_left()


def test_a_runner_that_is_killed(own_jobs: Any) -> None:
    job = begun(own_jobs, "(setsid sleep 60 &); echo began; sleep 60")
    runner_of(own_jobs).kill()
    found = own_jobs.until(job)
    assert found.status == JobStatus.FAILED and "was killed" in found.message
    assert own_jobs.nothing_is_left()


def test_a_command_that_is_killed(own_jobs: Any) -> None:
    job = begun(own_jobs)
    (shell,) = runner_of(own_jobs).children()
    shell.kill()
    found = own_jobs.until(job)
    assert (found.status, found.driver_exit_code) == (JobStatus.FAILED, -9)
    assert own_jobs.nothing_is_left()


def test_a_node_that_is_killed(own: Any, own_jobs: Any) -> None:
    node = own.start_node("one", 1, "--resources", "one=1")
    job = begun(own_jobs, entrypoint_resources={"one": 1})
    node.kill()
    found = own_jobs.until(job, timeout_s=30)
    assert found.status == JobStatus.FAILED and "node" in found.message
    assert own_jobs.nothing_is_left()


def test_a_supervisor_that_is_stopped_does_not_keep_its_job_from_ending(own_jobs: Any) -> None:
    job = begun(own_jobs)
    supervisor_of(own_jobs).send_signal(signal.SIGSTOP)
    assert own_jobs.stop_job(job)
    assert own_jobs.until(job, timeout_s=40).status == JobStatus.STOPPED
    assert own_jobs.nothing_is_left()


def test_a_runner_that_is_stopped_does_not_keep_its_command(own_jobs: Any) -> None:
    job = begun(own_jobs)
    runner_of(own_jobs).send_signal(signal.SIGSTOP)
    assert own_jobs.stop_job(job)
    assert own_jobs.until(job, timeout_s=40).status == JobStatus.STOPPED
    assert own_jobs.nothing_is_left()
    job = begun(own_jobs)
    runner = runner_of(own_jobs)
    supervisor = runner.parent()
    runner.send_signal(signal.SIGSTOP)
    supervisor.kill()
    assert own_jobs.until(job, timeout_s=40).status == JobStatus.FAILED
    assert own_jobs.nothing_is_left()


def test_a_cluster_that_is_stopped_leaves_nothing_of_its_jobs(own: Any, own_jobs: Any) -> None:
    begun(own_jobs, "trap '' TERM; (setsid sleep 60 &); echo began; while :; do sleep 0.1; done")
    assert own.head.stop() == 0
    assert own_jobs.nothing_is_left()
