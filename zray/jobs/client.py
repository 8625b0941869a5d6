"""``JobSubmissionClient``, as Ray's: submits jobs to a cluster, follows and stops them.

Speaks to the head, whatever address it is given, so it needs the cluster's connection file, as
every program does. What has no such file uses the HTTP API.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from zray import limits
from zray.api.runtime_env import NOTHING
from zray.errors import HeadConnectionError
from zray.jobs import operations
from zray.jobs.details import JobDetails, JobStatus
from zray.jobs.packages import environment_of
from zray.jobs.submission import checked_submission
from zray.nodes import contact
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.runtime import connection
from zray.runtime.connection import ConnectionInfo

T = TypeVar("T")

VERSION = "4"  # of Ray's API of jobs
LOOK_S = 0.1  # whether more was printed, at first; then less often
LOOK_MAX_S = 0.5
_VARIABLES = ("ZRAY_API_SERVER_ADDRESS", "RAY_API_SERVER_ADDRESS", "ZRAY_ADDRESS", "RAY_ADDRESS")


class JobSubmissionClient:
    """Of one cluster; looks when it is made whether that is there. For any number of threads.

    As ``ray.job_submission.JobSubmissionClient``. Its methods raise RuntimeError (JobNotFoundError,
    JobExistsError, JobSubmissionError) where Ray's do, and HeadConnectionError where the head
    cannot be reached.
    """

    def __init__(
        self,
        address: str | None = None,
        create_cluster_if_needed: bool = False,
        cookies: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
        verify: str | bool | None = True,
    ) -> None:
        """``address``: of the head (``host:port``), or of its page (``http://host:port``), of which
        there is a connection file here; None: ZRAY_API_SERVER_ADDRESS, RAY_API_SERVER_ADDRESS,
        ZRAY_ADDRESS, RAY_ADDRESS, else the one that runs on this machine. ``metadata``: of all jobs
        that are submitted. The others are accepted, and mean nothing here.

        Raises:
            TypeError: something is of another type. ValueError: the address cannot be one.
            HeadConnectionError (a ConnectionError): no such cluster can be reached.
        """
        if address is not None and not isinstance(address, str):
            raise TypeError(f"address must be a string, got {type(address)}")
        if not isinstance(create_cluster_if_needed, bool):
            raise TypeError(
                f"create_cluster_if_needed must be a bool, got {type(create_cluster_if_needed)}"
            )
        for name, value in (("cookies", cookies), ("metadata", metadata), ("headers", headers)):
            if value is not None and not isinstance(value, dict):
                raise TypeError(f"{name} must be a dict, got {type(value)}")
        if not isinstance(verify, str | bool):
            raise TypeError(f"verify must be a str or bool, got {type(verify)}")
        self._metadata = metadata
        self._info, self._address = found(address)
        self._ask(lambda operator: None)

    def get_address(self) -> str:
        """host:port of the head."""
        return self._address.partition(",")[0]

    def get_version(self) -> str:
        """Of Ray's API that this has."""
        return VERSION

    def _ask(self, question: Callable[[Operator], T]) -> T:
        """In a session of its own: nothing stays open, and heads may come and go in between."""
        with Operator(self._info, self._address) as operator:
            return question(operator)

    # ---- jobs ------------------------------------------------------------------------------

    def submit_job(
        self,
        *,
        entrypoint: str,
        job_id: str | None = None,
        runtime_env: dict[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        entrypoint_label_selector: dict[str, str] | None = None,
    ) -> str:
        """Have a shell command run on the cluster, once; returns its submission id at once.

        It is made durable first: from then on it needs neither this program nor the head that
        took it. It runs on the head's node, unless it asks for resources or labels of its own.

        Raises:
            TypeError, ValueError: an argument cannot be. RuntimeError: the id is taken, or the
                cluster has too many jobs.
        """
        wanted = checked_submission(
            entrypoint,
            submission_id or job_id,
            runtime_env,
            metadata if self._metadata is None else {**(metadata or {}), **self._metadata},
            entrypoint_num_cpus,
            entrypoint_num_gpus,
            entrypoint_memory,
            entrypoint_resources,
            entrypoint_label_selector,
        )
        if wanted.environment == NOTHING:
            return self._ask(lambda operator: operations.submit(operator, wanted))
        with environment_of(self._info, self._address, wanted) as environment:
            return self._ask(lambda operator: operations.submit(operator, wanted, environment))

    def stop_job(self, job_id: str) -> bool:
        """Have a job end: SIGTERM to all its processes, SIGKILL after 3 s; returns at once whether
        it had not ended.

        Raises:
            RuntimeError: there is no such job.
        """
        return self._ask(lambda operator: operations.stop(operator, job_id))

    def delete_job(self, job_id: str) -> bool:
        """Have the cluster forget a job that has ended. Its log stays for a while.

        Raises:
            RuntimeError: there is no such job, or it has not ended.
        """
        return self._ask(lambda operator: operations.delete(operator, job_id))

    def get_job_info(self, job_id: str) -> JobDetails:
        """What is known of a job, by its submission id or its driver's job id.

        Raises:
            RuntimeError: there is no such job.
        """
        return self._ask(lambda operator: operations.details(operator, job_id))

    def list_jobs(self) -> list[JobDetails]:
        """All jobs that the cluster remembers, drivers' that were not submitted among them."""
        return self._ask(operations.every)

    def get_job_status(self, job_id: str) -> JobStatus:
        """How far a job is.

        Raises:
            RuntimeError: there is no such job.
        """
        return self.get_job_info(job_id).status

    # ---- logs ------------------------------------------------------------------------------

    def get_job_logs(self, job_id: str) -> str:
        """What a job's command has printed; of more than 16 MiB, the end.

        Raises:
            RuntimeError: there is no such job, or the log is with a node that is gone.
        """
        data = self._ask(
            lambda operator: operations.JobLog(operator, job_id).last(limits.JOB_LOG_BYTES)
        )
        return data.decode("utf-8", "replace")

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """What a job's command has printed and will print, in pieces, until it has ended.

        Raises:
            RuntimeError: there is no such job, or the log is with a node that is gone.
        """
        pieces = self.follow(job_id)
        while True:
            piece = await asyncio.to_thread(next, pieces, None)
            if piece is None:
                return
            if piece:
                yield piece

    def follow(self, job_id: str) -> Iterator[str]:
        """As ``tail_job_logs``, in this thread; an empty piece now and then, if nothing comes."""
        info, address = self._info, self._address
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        heard = time.monotonic()
        log: operations.JobLog | None = None
        with Operator(info, address) as operator:
            pause_s, ended = LOOK_S, False
            while True:
                try:
                    log = log or operations.JobLog(operator, job_id)
                    data = log.next()
                    if not data and ended:
                        break
                    if not data:
                        ended = log.look().status in m.JOB_ENDS
                    heard = time.monotonic()
                except HeadConnectionError:
                    if time.monotonic() > heard + limits.HEAD_WAIT_S:
                        raise
                    operator.reopen(limits.HEAD_WAIT_S)
                    continue
                yield decoder.decode(data)
                if data:
                    pause_s = LOOK_S
                elif not ended:
                    time.sleep(pause_s)
                    pause_s = min(LOOK_MAX_S, pause_s * 1.5)
        if rest := decoder.decode(b"", final=True):
            yield rest


def found(address: str | None) -> tuple[ConnectionInfo, str]:
    """The cluster at an address: its keys, and where its head is.

    Raises:
        ValueError: the address cannot be one. HeadConnectionError: there is no such cluster.
    """
    if not address:
        address = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "auto")
    if address == "auto":
        return contact.running()
    if address.lower().startswith(("http://", "https://")):
        return _of_page(address)
    return contact.reach(address)


def _of_page(address: str) -> tuple[ConnectionInfo, str]:
    info = connection.find_page(address)
    if info is None:
        raise HeadConnectionError(
            f"no connection file on this machine is of a cluster whose page is at {address}: "
            "copy connection.json from the head's machine and point ZRAY_CONNECTION_FILE at it, or "
            "use the HTTP API under /api/jobs/ with a token (zray dashboard --token)"
        )
    return info, ",".join(info.reachable())
