"""Jobs on real processes: their environment, what they print, their ends, and what is left."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from zray.errors import JobExistsError, JobNotFoundError
from zray.job_submission import JobStatus, JobType
from zray.util import state

CONNECTS = f"""{sys.executable} -c 'if True:
    import zray
    zray.init()
    print("sum", zray.get(zray.remote(lambda: 1 + 2).remote()))
'"""


def test_a_job_runs_and_tells_how_it_was(jobs: Any) -> None:
    found = jobs.run("echo out; echo err >&2", metadata={"team": "a"}, submission_id="first")
    assert (found.type, found.status) == (JobType.SUBMISSION, JobStatus.SUCCEEDED)
    assert (found.submission_id, found.metadata) == ("first", {"team": "a"})
    assert found.driver_exit_code == 0 and found.error_type is None
    assert 0 < found.start_time <= found.end_time
    assert jobs.get_job_logs("first") == "out\nerr\n"
    assert jobs.nothing_is_left()


def test_one_that_fails_says_so_with_its_last_words(jobs: Any) -> None:
    found = jobs.run("echo oops; exit 3")
    assert (found.status, found.driver_exit_code) == (JobStatus.FAILED, 3)
    assert found.error_type == "JOB_ENTRYPOINT_COMMAND_ERROR" and "oops" in found.message


def test_its_program_joins_the_cluster_and_is_linked_to_it(jobs: Any, shared: Any) -> None:
    found = jobs.run(CONNECTS)
    assert found.status == JobStatus.SUCCEEDED, found.message
    assert "sum 3" in jobs.get_job_logs(found.submission_id)
    assert found.driver_info is not None and found.driver_info.id == found.job_id
    assert jobs.get_job_info(found.job_id) == found
    rows = state.list_jobs(address=shared.address, detail=True)
    linked = {one.job_id: (one.submission_id, one.type) for one in rows}
    assert linked[found.job_id] == (found.submission_id, "DRIVER")
    kinds = [one.type for one in rows if one.submission_id == found.submission_id]
    assert sorted(kinds) == ["DRIVER", "SUBMISSION"]


def test_the_command_has_the_environment_and_so_have_its_programs_tasks(jobs: Any) -> None:
    program = f"""echo "$A ${{ZRAY_JOB_SUBMISSION_ID}} $RAY_ADDRESS"; {sys.executable} -c 'if True:
        import os, zray
        zray.init(runtime_env={{"env_vars": {{"B": "two"}}}})
        print(zray.get(zray.remote(lambda: (os.environ["A"], os.environ["B"])).remote()))
    '"""
    found = jobs.run(program, runtime_env={"env_vars": {"A": "one"}}, submission_id="env")
    assert found.status == JobStatus.SUCCEEDED, found.message
    text = jobs.get_job_logs("env")
    assert text.startswith(f"one env {jobs.get_address()}") and "('one', 'two')" in text
    assert found.runtime_env == {"env_vars": {"A": "one"}}


def test_what_both_the_job_and_its_program_set_is_an_error(jobs: Any) -> None:
    program = f"""{sys.executable} -c 'if True:
        import zray
        zray.init(runtime_env={{"env_vars": {{"A": "two"}}}})'"""
    found = jobs.run(program, runtime_env={"env_vars": {"A": "one"}})
    assert found.status == JobStatus.FAILED and "ZRAY_OVERRIDE_JOB_RUNTIME_ENV" in found.message
    found = jobs.run(
        f"ZRAY_OVERRIDE_JOB_RUNTIME_ENV=1 {program}", runtime_env={"env_vars": {"A": ""}}
    )
    assert found.status == JobStatus.SUCCEEDED, found.message


def test_a_folder_is_sent_along(jobs: Any, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("from the folder")
    (tmp_path / "main.py").write_text(
        "import zray\nzray.init()\n"
        "print(zray.get(zray.remote(lambda: open('data.txt').read()).remote()))\n"
    )
    there = {"entrypoint_resources": {"one": 1}, "entrypoint_num_cpus": 1}
    found = jobs.run(
        f"cat data.txt; echo; {sys.executable} main.py",
        runtime_env={"working_dir": str(tmp_path)},
        **there,
    )
    assert found.status == JobStatus.SUCCEEDED, found.message
    text = jobs.get_job_logs(found.submission_id)
    assert text == "from the folder\nfrom the folder\n"
    assert found.runtime_env["working_dir"].startswith("zray://")


def test_an_environment_that_cannot_be_built(jobs: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"no zip file")
    found = jobs.run("true", runtime_env={"working_dir": f"file://{broken}"})
    assert (found.status, found.error_type) == (JobStatus.FAILED, "RUNTIME_ENV_SETUP_FAILURE")
    assert "broken.zip" in found.message


def test_it_runs_on_the_heads_node_or_where_its_resources_are(jobs: Any) -> None:
    rows = {one.node_name: one.node_id for one in state.list_nodes(address=jobs.get_address())}
    assert jobs.run("true").driver_node_id == rows["head"]
    there = jobs.run("true", entrypoint_resources={"one": 1}, entrypoint_num_cpus=1)
    assert there.driver_node_id == rows["one"]


def test_one_that_finds_no_node_waits_and_says_for_what(jobs: Any) -> None:
    job = jobs.submit_job(entrypoint="true", entrypoint_num_gpus=64)
    found = jobs.get_job_info(job)
    assert found.status == JobStatus.PENDING and "GPU 64" in found.message
    assert jobs.get_job_logs(job) == "" and jobs.stop_job(job)
    assert jobs.until(job).status == JobStatus.STOPPED


def test_stopping_ends_all_that_it_has_started(jobs: Any) -> None:
    job = jobs.submit_job(
        entrypoint="trap 'echo bye; exit 5' TERM; (setsid sleep 60 &) ; echo began; sleep 60 & wait"
    )
    jobs.says(job, "began")
    assert jobs.stop_job(job) is True
    found = jobs.until(job)
    assert found.status == JobStatus.STOPPED and "bye" in jobs.get_job_logs(job)
    assert jobs.nothing_is_left() and jobs.stop_job(job) is False


def test_one_that_does_not_obey_is_killed(jobs: Any) -> None:
    job = jobs.submit_job(entrypoint="trap '' TERM; echo began; while :; do sleep 0.1; done")
    jobs.says(job, "began")
    jobs.stop_job(job)
    assert jobs.until(job).status == JobStatus.STOPPED and jobs.nothing_is_left()


def test_what_it_leaves_running_ends_with_it(jobs: Any) -> None:
    found = jobs.run("sleep 60 & setsid sleep 60 & echo ended")
    assert found.status == JobStatus.SUCCEEDED and jobs.nothing_is_left()


def test_its_log_is_followed_as_it_grows_and_to_its_end(jobs: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = jobs.submit_job(
        entrypoint=f"echo one; while [ ! -e {go} ]; do sleep 0.05; done; echo two"
    )

    async def read() -> list[str]:
        pieces = []
        async for piece in jobs.tail_job_logs(job):
            pieces.append(piece)
            go.touch()
        return pieces

    assert asyncio.run(read()) == ["one\n", "two\n"]


def test_the_end_of_a_long_log(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = jobs.run("seq 200000")
    text = jobs.get_job_logs(found.submission_id)
    assert text.splitlines() == [str(number) for number in range(1, 200001)]
    assert "".join(jobs.follow(found.submission_id)) == text
    monkeypatch.setattr("zray.limits.JOB_LOG_BYTES", 100)
    assert jobs.get_job_logs(found.submission_id) == text[-100:]


def test_ids_that_are_taken_or_unknown(jobs: Any) -> None:
    jobs.run("true", submission_id="twice")
    with pytest.raises(JobExistsError, match="already exists"):
        jobs.submit_job(entrypoint="true", submission_id="twice")
    assert jobs.delete_job("twice") is True
    for ask in (jobs.get_job_info, jobs.get_job_logs, jobs.stop_job, jobs.delete_job):
        with pytest.raises(JobNotFoundError, match="does not exist"):
            ask("twice")
    assert jobs.run("true", submission_id="twice").status == JobStatus.SUCCEEDED


def test_all_are_listed_with_programs_that_nobody_has_submitted(jobs: Any, shared: Any) -> None:
    import zray

    job = jobs.run("true").submission_id
    shared.connect()
    try:
        mine = zray.get_runtime_context().get_job_id()
        found = {one.submission_id or one.job_id: one for one in jobs.list_jobs()}
        assert found[job].type == JobType.SUBMISSION
        assert (found[mine].type, found[mine].status) == (JobType.DRIVER, JobStatus.RUNNING)
        assert jobs.get_job_info(mine).driver_info == found[mine].driver_info
        with pytest.raises(RuntimeError, match="submission type"):
            jobs.stop_job(mine)
    finally:
        zray.shutdown()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"entrypoint": ""}, ValueError),
        ({"entrypoint": 5}, TypeError),
        ({"entrypoint": "a\0b"}, ValueError),
        ({"entrypoint": "true", "submission_id": "a b"}, ValueError),
        ({"entrypoint": "true", "metadata": {"a": 1}}, TypeError),
        ({"entrypoint": "true", "metadata": "a"}, TypeError),
        ({"entrypoint": "true", "runtime_env": {"no such": 1}}, ValueError),
        ({"entrypoint": "true", "entrypoint_num_cpus": "1"}, TypeError),
        ({"entrypoint": "true", "entrypoint_memory": 1.5}, TypeError),
        ({"entrypoint": "true", "entrypoint_resources": {"CPU": 1}}, ValueError),
        ({"entrypoint": "true", "entrypoint_label_selector": {"a": 1}}, TypeError),
    ],
)
def test_what_cannot_be_is_refused(jobs: Any, given: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        jobs.submit_job(**given)


def test_as_much_metadata_as_there_may_be(jobs: Any) -> None:
    metadata = {str(number): "\U0001f600" * 60 for number in range(1000)}
    found = jobs.run("echo hello", metadata=metadata)
    assert found.status == JobStatus.SUCCEEDED and found.metadata == metadata


def test_many_at_once(jobs: Any) -> None:
    made = [jobs.submit_job(entrypoint=f"echo {number}") for number in range(20)]
    assert len({*made}) == 20
    for number, job in enumerate(made):
        assert jobs.until(job).status == JobStatus.SUCCEEDED
        assert jobs.get_job_logs(job) == f"{number}\n"


def test_a_command_is_what_the_shell_makes_of_it(jobs: Any) -> None:
    found = jobs.run("""printf '%s|' "a b" 'c"d' \u00e9; echo $((1 + 1)) | cat""")
    assert jobs.get_job_logs(found.submission_id) == 'a b|c"d|\u00e9|2\n'
    json.dumps(found.dict())
