"""Clusters that run submitted jobs, and a look at what is left of their commands."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.real_cluster import START_S, Cluster, until
from zray.job_submission import JobDetails, JobSubmissionClient
from zray.jobs.supervisor import RUN_VARIABLE


class Jobs(JobSubmissionClient):
    """A client that waits, and sees what runs."""

    def until(self, job: str, *wanted: str, timeout_s: float = START_S) -> JobDetails:
        """The job, when its status is one of these; without any, when it has ended."""
        ends = wanted or ("STOPPED", "SUCCEEDED", "FAILED")

        def look() -> JobDetails | None:
            found = self.get_job_info(job)
            if not wanted and found.status.is_terminal():
                return found
            assert not (wanted and found.status.is_terminal() and str(found.status) not in wanted)
            return found if str(found.status) in ends else None

        return until(look, timeout_s, f"job {job} is {ends}")

    def run(self, entrypoint: str, **more: Any) -> JobDetails:
        """Submit, and wait for the end."""
        return self.until(self.submit_job(entrypoint=entrypoint, **more))

    def says(self, job: str, text: str, timeout_s: float = START_S) -> str:
        """Its log, when that has the text."""

        def look() -> str | None:
            found = self.get_job_logs(job)
            return found if text in found else None

        return until(look, timeout_s, f"job {job} says {text!r}")

    @staticmethod
    def processes() -> list[int]:
        """All that any job's command has started, and its runner."""
        found = []
        mine = os.environ["ZRAY_SESSION_TEST"].encode()
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                variables = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if f"{RUN_VARIABLE}=".encode() in variables and mine in variables:
                found.append(int(name))
        return found

    def nothing_is_left(self, timeout_s: float = START_S) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.processes()


@pytest.fixture(scope="module")
def shared(_module_leaves_nothing: Path) -> Iterator[Cluster]:
    """A head and a node of two CPUs; for all tests of a file."""
    cluster = Cluster(_module_leaves_nothing)
    try:
        cluster.start_head("--dashboard-port", "0")
        cluster.start_node("one", 2, "--resources", "one=10")
        yield cluster
    finally:
        if zray.is_initialized():
            zray.shutdown()
        cluster.close()


@pytest.fixture
def jobs(shared: Cluster) -> Jobs:
    return Jobs(shared.address)


@pytest.fixture
def own(zray_home: Path) -> Iterator[Cluster]:
    """A head, of this test alone."""
    cluster = Cluster(zray_home)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def own_jobs(own: Cluster) -> Jobs:
    return Jobs(own.address)
