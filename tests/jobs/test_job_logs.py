"""Logs of jobs whose nodes rotate them."""

from __future__ import annotations

from pathlib import Path

from tests.jobs.conftest import Jobs
from tests.real_cluster import Cluster
from zray.nodes.driver.operator import Operator


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
