"""Sends what a job's environment is made of: files go to the cluster before the job does."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

from zray import limits
from zray.api import environments
from zray.api.driver_account import job_info
from zray.errors import HeadSilentError
from zray.jobs.submission import Alone, Submission, has_files
from zray.nodes.driver.driver import Driver
from zray.protocol import messages as m
from zray.runtime import session
from zray.runtime.connection import ConnectionInfo


@contextlib.contextmanager
def environment_of(
    info: ConnectionInfo, address: str, wanted: Submission
) -> Iterator[m.Environment]:
    """What a job's runtime_env is on that cluster, where its packages are for as long as this is
    open; a job that is submitted meanwhile holds them itself.

    Raises:
        ValueError: a folder has too much in it. OSError: a file cannot be read.
        HeadConnectionError and its kinds: the cluster cannot be reached.
    """
    if not has_files(wanted):
        yield _whole(Alone(), wanted)
        return
    with _participant(info, address) as participant:
        environment = _whole(_Sender(participant), wanted)
        told = participant.ask(lambda seq: m.Sync(seq), limits.QUESTION_S)
        if told is None:
            raise HeadSilentError(f"the head at {address} did not answer in time")
        yield environment


class _Sender(Alone):
    """Sends packages by way of a participant."""

    def __init__(self, participant: Any) -> None:
        self.packages = participant.packages
        # A job may start after a restart of the head, when this process has long ended.
        self.keep_bytes = partial(participant.keep_bytes, least=0)


def _whole(sender: Alone, wanted: Submission) -> m.Environment:
    found = environments.environment_of(sender, wanted.environment)
    assert found is not None  # who asks for nothing does not come here
    return found


@contextlib.contextmanager
def _participant(info: ConnectionInfo, address: str) -> Iterator[Any]:
    """This program as it is connected, or else a driver for the moment."""
    here = session.current()
    known = getattr(here, "info", None)
    if here is not None and known is not None and known.cluster_id == info.cluster_id:
        yield here
        return
    namespace = secrets.token_hex(16)
    driver = Driver(info, address, job_info(False, namespace, 0.0, None), namespace)
    try:
        driver.connect()
        yield driver
    finally:
        driver.close()
