"""Contracts of submitted jobs: what the client takes, tells, follows, stops and forgets."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.job_submission import (
    DriverInfo,
    JobDetails,
    JobErrorType,
    JobInfo,
    JobStatus,
    JobSubmissionClient,
    JobType,
)

END_S = 45.0


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Of a cluster of this module's own, which has a page."""
    context = ray.init(num_cpus=4, include_dashboard=True)
    found = JobSubmissionClient(f"http://{context.dashboard_url}")
    yield found
    ray.shutdown()


def ended(client: Any, job: str) -> Any:
    """The job, when it has ended."""
    deadline = time.monotonic() + END_S
    while not client.get_job_status(job).is_terminal():
        assert time.monotonic() < deadline, client.get_job_info(job)
        time.sleep(0.1)
    return client.get_job_info(job)


def running(client: Any, job: str, text: str = "began") -> None:
    """Wait until it has printed the line."""
    deadline = time.monotonic() + END_S
    while text not in client.get_job_logs(job).splitlines():
        assert time.monotonic() < deadline, client.get_job_info(job)
        time.sleep(0.1)


def pid_of(client: Any, job: str) -> int:
    """What it has printed as that of its shell."""
    (found,) = re.findall(r"^pid ([0-9]+)$", client.get_job_logs(job), re.MULTILINE)
    return int(found)


def gone(pid: int) -> bool:
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


# ---- states and kinds ----------------------------------------------------------------------


def test_states_are_strings_and_three_are_ends() -> None:
    """A JobStatus is its own text; STOPPED, SUCCEEDED and FAILED are terminal."""
    assert [str(one) for one in JobStatus] == [
        *("PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED")
    ]
    assert JobStatus.RUNNING == "RUNNING" and JobStatus("FAILED") is JobStatus.FAILED
    ends = [one for one in JobStatus if one.is_terminal()]
    assert ends == [JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED]


def test_there_are_two_types_of_jobs() -> None:
    """A job was submitted, or is that of a driver."""
    assert {one.value for one in JobType} == {"SUBMISSION", "DRIVER"}
    assert JobErrorType.JOB_ENTRYPOINT_COMMAND_ERROR.value == "JOB_ENTRYPOINT_COMMAND_ERROR"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("PENDING", "Job has not started yet."),
        ("RUNNING", "Job is currently running."),
        ("STOPPED", "Job was intentionally stopped."),
        ("SUCCEEDED", "Job finished successfully."),
        ("FAILED", "Job failed."),
    ],
)
def test_an_info_without_a_message_has_its_states(status: str, words: str) -> None:
    """JobInfo takes a state by its text, and says what that means."""
    info = JobInfo(status=status, entrypoint="true")
    assert (info.status, info.message) == (JobStatus(status), words)


def test_details_say_what_they_are_made_of() -> None:
    """JobDetails and DriverInfo are made by keywords, with what is not given None."""
    driver = DriverInfo(id="02000000", node_ip_address="127.0.0.1", pid="7")
    found = JobDetails(
        type=JobType.SUBMISSION, status=JobStatus.RUNNING, entrypoint="true", driver_info=driver
    )
    assert (found.driver_info.pid, found.job_id, found.end_time) == ("7", None, None)


# ---- lives ---------------------------------------------------------------------------------


def test_submit_returns_an_id_that_begins_with_raysubmit(client: Any) -> None:
    """Without a submission_id one is made up."""
    job = client.submit_job(entrypoint="echo hello")
    assert job.startswith("raysubmit_") and len(job) > len("raysubmit_")
    assert ended(client, job).status == JobStatus.SUCCEEDED


def test_a_job_that_has_succeeded(client: Any) -> None:
    """Its details: type, state, exit code, times in milliseconds, what it was submitted with."""
    before = time.time() * 1000 - 1000
    job = client.submit_job(entrypoint="echo hello", submission_id="whole", metadata={"a": "b"})
    assert job == "whole"
    found = ended(client, job)
    assert found.type == JobType.SUBMISSION and found.submission_id == "whole"
    assert (found.status, found.entrypoint) == (JobStatus.SUCCEEDED, "echo hello")
    assert found.message == "Job finished successfully." and found.error_type is None
    assert found.metadata == {"a": "b"} and found.driver_exit_code == 0
    assert before <= found.start_time <= found.end_time <= time.time() * 1000 + 1000
    assert found.driver_node_id and found.job_id is None and found.driver_info is None
    assert "hello\n" in client.get_job_logs(job)


def test_a_job_that_has_failed(client: Any) -> None:
    """Its message has the exit code and the last that was printed."""
    found = ended(client, client.submit_job(entrypoint="echo oops >&2; exit 3"))
    assert (found.status, found.driver_exit_code) == (JobStatus.FAILED, 3)
    assert found.error_type == "JOB_ENTRYPOINT_COMMAND_ERROR"
    assert "exit code 3" in found.message and "oops" in found.message


def test_a_command_that_there_is_not_fails(client: Any) -> None:
    """The shell says so, with its code for that."""
    found = ended(client, client.submit_job(entrypoint="no-such-program-at-all"))
    assert (found.status, found.driver_exit_code) == (JobStatus.FAILED, 127)


def test_the_entrypoint_is_a_shell_command(client: Any) -> None:
    """Pipes, variables and quotes are the shell's."""
    job = client.submit_job(entrypoint="""X='a  b'; echo "$X" | tr a c""")
    ended(client, job)
    assert "c  b\n" in client.get_job_logs(job)


def test_its_program_joins_the_cluster(client: Any, python: list[str], tmp_path: Path) -> None:
    """ray.init() without an address connects; the details then have its driver."""
    program = tmp_path / "joins.py"
    program.write_text(
        "import ray\nray.init()\nprint(ray.get(ray.put(5)) + 1, ray.cluster_resources())\n"
    )
    job = client.submit_job(entrypoint=" ".join([*python, str(program)]))
    found = ended(client, job)
    assert found.status == JobStatus.SUCCEEDED, found.message
    assert "6 {" in client.get_job_logs(job)
    assert found.driver_info is not None and found.driver_info.id == found.job_id
    assert found.driver_info.pid.isdigit()
    assert client.get_job_info(found.job_id).submission_id == job


def test_env_vars_reach_the_command(client: Any) -> None:
    """Those of its runtime_env are variables of the command."""
    job = client.submit_job(entrypoint="echo is $A", runtime_env={"env_vars": {"A": "here"}})
    found = ended(client, job)
    assert "is here" in client.get_job_logs(job) and found.runtime_env["env_vars"]["A"] == "here"


def test_its_tasks_have_the_runtime_env_of_the_job(
    client: Any, python: list[str], tmp_path: Path
) -> None:
    """init() in the program inherits it."""
    program = tmp_path / "inherits.py"
    program.write_text(
        "import os, ray\nray.init()\n"
        "print('has', ray.get(ray.remote(lambda: os.environ.get('A')).remote()))\n"
    )
    job = client.submit_job(
        entrypoint=" ".join([*python, str(program)]), runtime_env={"env_vars": {"A": "it"}}
    )
    found = ended(client, job)
    assert found.status == JobStatus.SUCCEEDED, found.message
    assert "has it" in client.get_job_logs(job)


# ---- ids -----------------------------------------------------------------------------------


def test_an_id_is_good_for_one_job(client: Any) -> None:
    """Another job of that id is refused."""
    ended(client, client.submit_job(entrypoint="true", submission_id="once"))
    with pytest.raises(RuntimeError, match="already exists"):
        client.submit_job(entrypoint="true", submission_id="once")


@pytest.mark.parametrize("ask", ["get_job_info", "get_job_status", "stop_job", "delete_job"])
def test_what_there_is_not(client: Any, ask: str) -> None:
    """It is a RuntimeError."""
    with pytest.raises(RuntimeError, match="does not exist"):
        getattr(client, ask)("there-is-no-such-job")


def test_logs_of_what_there_is_not(client: Any) -> None:
    """It is a RuntimeError."""
    with pytest.raises(RuntimeError, match="does not exist"):
        client.get_job_logs("there-is-no-such-job")


def test_all_are_listed(client: Any) -> None:
    """Those that have ended, and this program, which nobody has submitted."""
    job = client.submit_job(entrypoint="true")
    ended(client, job)
    found = client.list_jobs()
    assert job in [one.submission_id for one in found]
    mine = ray.get_runtime_context().get_job_id()
    (driver,) = [one for one in found if one.job_id == mine]
    assert driver.type == JobType.DRIVER and driver.submission_id is None
    assert driver.status == JobStatus.RUNNING and driver.driver_info.pid == str(os.getpid())


# ---- stopping and forgetting ---------------------------------------------------------------


def test_a_job_that_runs_is_stopped(client: Any) -> None:
    """True, and later STOPPED; what it has started is gone."""
    job = client.submit_job(entrypoint="echo pid $$; echo began; sleep 300")
    running(client, job)
    pid = pid_of(client, job)
    assert client.get_job_status(job) == JobStatus.RUNNING
    assert client.stop_job(job) is True
    found = ended(client, job)
    assert found.status == JobStatus.STOPPED and found.end_time
    assert found.message == "Job was intentionally stopped." and gone(pid)


def test_stopping_asks_first(client: Any) -> None:
    """SIGTERM, which the command may answer."""
    job = client.submit_job(
        entrypoint="trap 'echo asked; exit 0' TERM; echo began; while :; do sleep 0.1; done"
    )
    running(client, job)
    client.stop_job(job)
    assert ended(client, job).status == JobStatus.STOPPED
    assert "asked" in client.get_job_logs(job)


def test_stopping_does_not_ask_twice(client: Any) -> None:
    """What does not obey is killed after three seconds."""
    job = client.submit_job(
        entrypoint="trap '' TERM; echo pid $$; echo began; while :; do sleep 0.1; done"
    )
    running(client, job)
    pid = pid_of(client, job)
    client.stop_job(job)
    assert ended(client, job).status == JobStatus.STOPPED and gone(pid)


def test_what_has_ended_is_not_stopped(client: Any) -> None:
    """False, and it is as it was."""
    job = client.submit_job(entrypoint="true")
    ended(client, job)
    deadline = time.monotonic() + END_S
    while client.stop_job(job):  # its supervisor may live for a moment more
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client.get_job_status(job) == JobStatus.SUCCEEDED


def test_what_has_ended_is_forgotten(client: Any) -> None:
    """Then there is no such job."""
    job = client.submit_job(entrypoint="true")
    ended(client, job)
    assert client.delete_job(job) is True
    with pytest.raises(RuntimeError, match="does not exist"):
        client.get_job_info(job)


def test_what_runs_is_not_forgotten(client: Any) -> None:
    """It is a RuntimeError."""
    job = client.submit_job(entrypoint="echo began; sleep 300")
    running(client, job)
    with pytest.raises(RuntimeError, match="non-terminal"):
        client.delete_job(job)
    client.stop_job(job)
    ended(client, job)


# ---- logs ----------------------------------------------------------------------------------


def test_a_log_is_followed_to_the_jobs_end(client: Any) -> None:
    """Pieces of text come as they are printed; the iterator ends with the job."""
    job = client.submit_job(entrypoint="for i in 1 2 3; do echo line $i; sleep 0.3; done")

    async def read() -> list[str]:
        return [piece async for piece in client.tail_job_logs(job)]

    pieces = asyncio.run(read())
    assert [line for line in "".join(pieces).splitlines() if line.startswith("line")] == [
        *("line 1", "line 2", "line 3")
    ]
    assert client.get_job_status(job).is_terminal()


# ---- what is refused -----------------------------------------------------------------------


def test_all_is_said_by_keyword(client: Any) -> None:
    """submit_job takes no positional arguments, and needs an entrypoint."""
    with pytest.raises(TypeError):
        client.submit_job("true")
    with pytest.raises(TypeError):
        client.submit_job()


@pytest.mark.parametrize(
    "given",
    [
        {"entrypoint": 5},
        {"entrypoint": "true", "submission_id": 5},
        {"entrypoint": "true", "metadata": {"a": 5}},
        {"entrypoint": "true", "metadata": {5: "a"}},
        {"entrypoint": "true", "entrypoint_num_cpus": "1"},
        {"entrypoint": "true", "entrypoint_num_gpus": "1"},
        {"entrypoint": "true", "entrypoint_memory": "1"},
        {"entrypoint": "true", "entrypoint_resources": {"a": "1"}},
        {"entrypoint": "true", "entrypoint_resources": {5: 1}},
        {"entrypoint": "true", "entrypoint_label_selector": {"a": 5}},
    ],
)
def test_a_value_of_another_type(client: Any, given: dict[str, Any]) -> None:
    """It is a TypeError."""
    with pytest.raises(TypeError):
        client.submit_job(**given)


@pytest.mark.parametrize(
    "given", [{"address": 5}, {"cookies": 5}, {"metadata": 5}, {"headers": 5}, {"verify": 5}]
)
def test_the_client_checks_what_it_is_given(given: dict[str, Any]) -> None:
    """It is a TypeError."""
    with pytest.raises(TypeError):
        JobSubmissionClient(**given)


def test_where_nothing_is() -> None:
    """It is a ConnectionError."""
    with pytest.raises(ConnectionError):
        JobSubmissionClient("http://127.0.0.1:9")


# ---- resources -----------------------------------------------------------------------------


def test_the_command_takes_what_it_asks_for(client: Any) -> None:
    """Its CPUs are not there for others while it runs."""
    job = client.submit_job(entrypoint="echo began; sleep 300", entrypoint_num_cpus=3)
    running(client, job)
    deadline = time.monotonic() + END_S
    while ray.available_resources().get("CPU", 0) != 1:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)
    client.stop_job(job)
    ended(client, job)


def test_what_finds_no_node_waits(client: Any) -> None:
    """PENDING, and it can be stopped."""
    job = client.submit_job(entrypoint="true", entrypoint_resources={"there-is-none": 1})
    time.sleep(0.5)
    found = client.get_job_info(job)
    assert found.status == JobStatus.PENDING and "has not started yet" in found.message
    client.stop_job(job)
