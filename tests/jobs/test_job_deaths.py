"""Whatever dies, no job says RUNNING for ever: submitter, head, node, supervisor, command."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil

from zray.job_submission import JobStatus


def supervisor_of(jobs: Any, job: str) -> psutil.Process:
    """Its worker: the parent of the runner."""
    for pid in jobs.processes():
        process = psutil.Process(pid)
        if "runner.py" in " ".join(process.cmdline()):
            return process.parent()
    raise AssertionError(f"{job} has no runner")


def runner_of(jobs: Any, job: str) -> psutil.Process:
    (found,) = supervisor_of(jobs, job).children()
    return found


def begun(jobs: Any, entrypoint: str = "echo began; sleep 60", **more: Any) -> str:
    job: str = jobs.submit_job(entrypoint=entrypoint, **more)
    jobs.says(job, "began")
    return job


def test_a_job_outlives_its_submitter_and_a_head_that_is_killed(own: Any, own_jobs: Any) -> None:
    program = own.run(
        "submits",
        """
        from zray.job_submission import JobSubmissionClient
        JobSubmissionClient().submit_job(
            entrypoint="echo began; while [ ! -e go ]; do sleep 0.05; done; echo ended",
            submission_id="lasting", runtime_env={"env_vars": {"A": "b"}},
        )
        """,
    )
    assert program.wait(20) == 0
    text = own_jobs.says("lasting", "began")
    address = own.address
    own.head.kill()
    own.start_head(port=-1)
    own.address = address
    assert own_jobs.get_job_status("lasting") == JobStatus.RUNNING
    (runner,) = [
        one
        for one in map(psutil.Process, own_jobs.processes())
        if "runner.py" in " ".join(one.cmdline())
    ]
    with open(os.path.join(runner.cwd(), "go"), "w"):
        pass
    try:
        found = own_jobs.until("lasting")
    finally:
        os.unlink(os.path.join(runner.cwd(), "go"))
    assert found.status == JobStatus.SUCCEEDED
    assert own_jobs.get_job_logs("lasting") == f"{text}ended\n"


def test_a_command_that_ends_while_no_head_is_there(own: Any, own_jobs: Any) -> None:
    job = begun(own_jobs, "echo began; sleep 0.5; exit 7")
    (runner,) = [runner_of(own_jobs, job)]
    address = own.address
    own.head.kill()
    psutil.wait_procs([runner], 20)
    assert not runner.is_running()
    own.start_head(port=-1)
    own.address = address
    found = own_jobs.until(job)
    assert (found.status, found.driver_exit_code) == (JobStatus.FAILED, 7)


def test_a_supervisor_that_is_killed(own_jobs: Any) -> None:
    job = begun(own_jobs)
    supervisor_of(own_jobs, job).kill()
    found = own_jobs.until(job)
    assert (found.status, found.error_type) == (JobStatus.FAILED, "JOB_SUPERVISOR_ACTOR_DIED")
    assert own_jobs.nothing_is_left()


def test_a_runner_that_is_killed(own_jobs: Any) -> None:
    job = begun(own_jobs, "(setsid sleep 60 &); echo began; sleep 60")
    runner_of(own_jobs, job).kill()
    found = own_jobs.until(job)
    assert found.status == JobStatus.FAILED and "was killed" in found.message
    assert own_jobs.nothing_is_left()


def test_a_command_that_is_killed(own_jobs: Any) -> None:
    job = begun(own_jobs)
    (shell,) = runner_of(own_jobs, job).children()
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
    supervisor_of(own_jobs, job).send_signal(signal.SIGSTOP)
    assert own_jobs.stop_job(job)
    assert own_jobs.until(job, timeout_s=40).status == JobStatus.STOPPED
    assert own_jobs.nothing_is_left()


def test_a_cluster_that_is_stopped_leaves_nothing_of_its_jobs(own: Any, own_jobs: Any) -> None:
    begun(own_jobs, "trap '' TERM; (setsid sleep 60 &); echo began; while :; do sleep 0.1; done")
    assert own.head.stop() == 0
    assert own_jobs.nothing_is_left()
