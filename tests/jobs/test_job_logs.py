"""Logs of jobs whose nodes rotate them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.conftest import Jobs
from tests.real_cluster import Cluster
from zray.errors import JobNotFoundError, LogUnavailableError
from zray.nodes.driver.operator import Operator
from zray.util import state


def test_a_log_that_was_rotated_is_whole(zray_home: Path) -> None:
    cluster = Cluster(zray_home)
    try:
        cluster.start_head(environment={"ZRAY_ROTATION_MAX_BYTES": "100000"})
        jobs = Jobs(cluster.address)
        found = jobs.run("for i in 1 2 3; do seq $i 20000; sleep 0.3; done; echo end")
        wanted = "".join(f"{n}\n" for i in (1, 2, 3) for n in range(i, 20001)) + "end\n"
        assert jobs.get_job_logs(found.submission_id) == wanted
        assert "".join(jobs.follow(found.submission_id)) == wanted
        with Operator(cluster.info(), cluster.address) as operator:
            (told,) = operator.log_files([node.node_id for node in operator.nodes()])
        assert told is not None and any(one.name.endswith(".log.1") for one in told.files)
    finally:
        cluster.close()


def test_the_log_is_found_by_the_submission_as_well(zray_home: Path) -> None:
    """In ``zray.util.state``, with what is known of the job."""
    cluster = Cluster(zray_home)
    try:
        cluster.start_head()
        jobs = Jobs(cluster.address)
        submission_id = jobs.run("echo hello").submission_id
        found = state.get_log(cluster.address, submission_id=submission_id)
        assert "".join(found) == "hello\n"
        waits = jobs.submit_job(entrypoint="true", entrypoint_num_gpus=1000)
        with pytest.raises(LogUnavailableError):
            next(iter(state.get_log(cluster.address, submission_id=waits)))
        with pytest.raises(JobNotFoundError):
            next(iter(state.get_log(cluster.address, submission_id="nobody")))
        listed = state.list_jobs(cluster.address)
        assert {one.submission_id for one in listed} == {submission_id, waits}
        found_job = state.get_job(submission_id, cluster.address)
        assert found_job is not None and found_job.type == "SUBMISSION"
    finally:
        cluster.close()
