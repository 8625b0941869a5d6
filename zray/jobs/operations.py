"""What is done with submitted jobs, as an operator of one cluster: submit, stop, look, read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from zray import limits
from zray.errors import (
    BusyError,
    HeadConnectionError,
    JobExistsError,
    JobNotFoundError,
    JobSubmissionError,
    LogUnavailableError,
    NotFoundError,
)
from zray.jobs import submission
from zray.jobs.details import DriverInfo, JobDetails, JobStatus, JobType, message_of
from zray.jobs.submission import Submission
from zray.nodes.driver.log_reader import LogReader
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

_ERRORS = {one.code: one for one in (JobNotFoundError, JobExistsError, BusyError)}


# ---- changes -------------------------------------------------------------------------------


def submit(operator: Operator, wanted: Submission, environment: m.Environment | None = None) -> str:
    """Submit a job; its id, once the cluster has it for good. ``environment``: that of its
    runtime_env, if it has one; its packages are there.

    Raises:
        JobExistsError: the id is taken. BusyError: too many jobs have not ended.
        JobSubmissionError: it is too large. HeadConnectionError: it may be submitted, or not.
    """
    message = submission.message_of(wanted, environment)
    try:
        _answered(operator, message)
    except HeadConnectionError as error:
        if type(error) is not HeadConnectionError:
            raise
        operator.reopen(limits.CONNECT_TIMEOUT_S)  # the head has restarted: the same is the same
        _answered(operator, message)
    return wanted.submission_id


def stop(operator: Operator, word: str) -> bool:
    """Have a job end; whether it had not ended.

    Raises:
        JobNotFoundError: there is none. JobSubmissionError: it is a driver's, not a submitted one.
    """
    return _end(operator, word, delete=False)


def delete(operator: Operator, word: str) -> bool:
    """Have the cluster forget a job that has ended.

    Raises:
        JobNotFoundError: there is none. JobSubmissionError: it has not ended, or is a driver's.
    """
    return _end(operator, word, delete=True)


def _end(operator: Operator, word: str, *, delete: bool) -> bool:
    try:
        return _answered(operator, m.EndJob(0, checked_word(word), delete)).done
    except JobNotFoundError:
        if _driver(operator, word) is not None:
            what = "delete" if delete else "stop"
            raise JobSubmissionError(f"Can only {what} submission type jobs") from None
        raise


def _answered(operator: Operator, message: m.Message) -> m.JobAnswered:
    (answer,) = operator.ask_all([message], limits.QUESTION_S)
    if isinstance(answer, m.JobAnswered) and answer.code:
        kind = _ERRORS.get(answer.code, JobSubmissionError)
        raise kind(answer.text, code=answer.code)
    return operator.checked(answer, m.JobAnswered, limits.QUESTION_S)


# ---- looks ---------------------------------------------------------------------------------


def checked_word(word: Any) -> str:
    """What may stand for a job.

    Raises:
        TypeError: it is no text. JobNotFoundError: nothing can be called so.
    """
    if not isinstance(word, str):
        raise TypeError(f"the id of a job must be a string, got {type(word)}")
    if not word or len(word) > limits.NAME_MAX or not word.isprintable():
        raise JobNotFoundError(f"Job {word[: limits.NAME_MAX]!r} does not exist")
    return word


def row_of(operator: Operator, word: str) -> m.SubmittedJob | None:
    """A submitted job, by its id or that of its driver's job; None: there is none."""
    told = operator.ask(m.AskJobs(0, checked_word(word)), m.JobsTold, limits.QUESTION_S)
    return told.jobs[0] if told.jobs else None


def submitted(operator: Operator, word: str) -> m.SubmittedJob:
    """The same.

    Raises:
        JobNotFoundError: there is none. JobSubmissionError: it is a driver's.
    """
    row = row_of(operator, word)
    if row is not None:
        return row
    if _driver(operator, word) is not None:
        raise JobSubmissionError("Can only get logs of submission type jobs; see zray logs job")
    raise JobNotFoundError(f"Job {word} does not exist; zray job list shows which there are")


def details(operator: Operator, word: str) -> JobDetails:
    """What is told of a job, submitted or a driver's.

    Raises:
        JobNotFoundError: there is none.
    """
    row = row_of(operator, word)
    if row is not None:
        return of_row(row)
    found = _driver(operator, word)
    if found is None:
        raise JobNotFoundError(f"Job {word} does not exist; zray job list shows which there are")
    return found


def rows(operator: Operator) -> Iterator[m.SubmittedJob]:
    """All submitted jobs that the head remembers, in the order of their submission."""
    after = 0
    while True:
        told = operator.ask(m.AskJobs(0, "", after), m.JobsTold, limits.QUESTION_S)
        yield from told.jobs
        after = told.after
        if not after:
            return


def every(operator: Operator) -> list[JobDetails]:
    """All jobs that the head remembers: those that were submitted, then other drivers'."""
    found = [of_row(row) for row in rows(operator)]
    cursor = b""
    while True:
        listed = operator.page(m.JOBS, cursor=cursor)
        found += [_of_driver(one) for one in listed.jobs if _is_program(one)]
        cursor = listed.cursor
        if not cursor:
            return found


def _is_program(row: m.ListedJob) -> bool:
    """Whether a program has connected by itself: no detached actor, and no job's command."""
    return not row.detached and not row.submission_id


def _driver(operator: Operator, word: str) -> JobDetails | None:
    try:
        job_id = bytes.fromhex(word)
    except ValueError:
        return None
    if len(job_id) != 16:
        return None
    found = operator.page(m.JOBS, only=job_id).jobs
    return _of_driver(found[0]) if found and _is_program(found[0]) else None


def of_row(row: m.SubmittedJob) -> JobDetails:
    """A submitted job, in Ray's words."""
    status = JobStatus(row.status)
    driver = None
    if row.driver_id:
        driver = DriverInfo(row.driver_id.hex(), row.driver_host, str(row.driver_pid))
    return JobDetails(
        JobType.SUBMISSION,
        status,
        row.entrypoint,
        job_id=driver.id if driver is not None else None,
        submission_id=row.submission_id,
        driver_info=driver,
        message=message_of(status, row.message),
        error_type=row.error or None,
        start_time=row.started_ms or None,
        end_time=row.ended_ms or None,
        metadata=dict(row.metadata),
        runtime_env=json.loads(row.runtime_env or "{}"),
        driver_node_id=row.node_id.hex() or None,
        driver_exit_code=None if row.exit_code == m.NO_EXIT_CODE else row.exit_code,
    )


def _of_driver(row: m.ListedJob) -> JobDetails:
    status = JobStatus(row.status)
    return JobDetails(
        JobType.DRIVER,
        status,
        row.entrypoint,
        job_id=row.job_id.hex(),
        driver_info=DriverInfo(row.job_id.hex(), row.host, str(row.pid)),
        message=message_of(status, row.message),
        start_time=int(row.started_s * 1000) or None,
        end_time=int(row.ended_s * 1000) or None,
        metadata={},
        runtime_env={},
    )


# ---- logs ----------------------------------------------------------------------------------


class JobLog:
    """What a job's command has printed, part after part; also as it goes on.

    Raises:
        JobNotFoundError, JobSubmissionError: as ``submitted``.
    """

    def __init__(self, operator: Operator, word: str) -> None:
        self._operator = operator
        self._word = word
        self._reader: LogReader | None = None
        self.job = submitted(operator, word)

    def use(self, operator: Operator) -> None:
        """Go on with this session."""
        self._operator = operator
        if self._reader is not None:
            self._reader.operator = operator

    def _file(self, number: int = 0) -> m.LogPart | None:
        """Which file the log is, or was ``number`` rotations ago; None: there is none."""
        name = self._name + (f".{number}" if number else "")
        try:
            return self._operator.read_log(self.job.node_id, name, 0, 0, 0)
        except LogUnavailableError:  # it has printed nothing, or so long ago that it was removed
            return None
        except NotFoundError as error:
            raise JobSubmissionError(
                f"the log of job {self.job.submission_id} is with its node, which is not "
                f"connected: {error}"
            ) from None

    def _files(self) -> Iterator[tuple[str, m.LogPart]]:
        """Those that there are, the present one first."""
        for number in range(limits.LOG_FILES_KEPT_MAX + 1):
            found = self._file(number) if self.job.worker_id else None
            if found is None:
                return
            yield self._name + (f".{number}" if number else ""), found

    @property
    def _name(self) -> str:
        return f"worker-{self.job.worker_id.hex()}.log"

    def _read(self, name: str, file_id: int) -> LogReader:
        file = m.LogFile(name, file_id, 0, 0.0, self.job.worker_id)
        return LogReader(self._operator, self.job.node_id, file)

    def look(self) -> m.SubmittedJob:
        """The job as it is now."""
        self.job = submitted(self._operator, self._word)
        return self.job

    def next(self) -> bytes:
        """What comes next; nothing: no more is there as yet.

        Raises:
            JobSubmissionError: its node is not there, and its log with it.
        """
        if self._reader is None:
            files = [*self._files()]
            if not files:
                return b""
            self._reader = self._read(self._name, files[-1][1].file_id)  # others follow it
        try:
            return self._reader.next()
        except LogUnavailableError:
            return b""
        except NotFoundError:
            self._file()
            raise

    def last(self, most: int) -> bytes:
        """The last bytes that are there, at most so many.

        Raises:
            JobSubmissionError: as ``next``.
        """
        found = b""
        for name, part in self._files():
            reader = self._read(name, part.file_id)
            reader.offset = max(0, part.size - (most - len(found)))
            found = _rest(reader, part.size) + found
            if len(found) >= most:
                break
        return found


def _rest(reader: LogReader, size: int) -> bytes:
    parts = []
    file_id = reader.file_id
    while reader.file_id == file_id and reader.offset < size:
        data = reader.next()
        if not data:
            break
        parts.append(data)
    return b"".join(parts)
