"""The submitted jobs that the head knows, and what the store keeps of each; `jobs` changes them.

Those that have ended are kept within a number and a size: the oldest ends are forgotten first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable

import msgspec

from zray import limits
from zray.protocol import messages as m

TABLE = "submissions"  # of the store


class JobRow(msgspec.Struct, array_like=True, frozen=True):
    """What the store keeps. ``number``: jobs are listed in the order of these."""

    number: int
    job: m.SubmittedJob


class JobRecord:
    """A submitted job. ``row``: as it is; ``told``: as it is durably, which is what others see."""

    def __init__(self, number: int, row: m.SubmittedJob) -> None:
        self.number = number
        self.row = row
        self.told: m.SubmittedJob | None = None
        self.size = 0  # of its row in the store
        self.until_told: list[Callable[[], None]] = []  # answers that wait for it to be durable

    @property
    def submission_id(self) -> str:
        """Its id."""
        return self.row.submission_id

    @property
    def ended(self) -> bool:
        """Whether nothing will become of it any more."""
        return self.row.status in m.JOB_ENDS

    def encoded(self) -> tuple[str, bytes, bytes]:
        """Its row for the store."""
        data = msgspec.msgpack.encode(JobRow(self.number, self.row))
        self.size = len(data)
        return (TABLE, self.submission_id.encode(), data)


class JobTable:
    """``rows``: of the store."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self._by_id: dict[str, JobRecord] = {}
        self._by_number: dict[int, JobRecord] = {}
        self._numbers: list[int] = []
        self._of_actors: dict[bytes, JobRecord] = {}
        self._of_drivers: dict[bytes, JobRecord] = {}
        self._ended: dict[int, JobRecord] = {}  # in the order of their ends
        self._ended_bytes = 0
        found = [msgspec.msgpack.decode(value, type=JobRow) for value in rows.values()]
        for stored in sorted(found, key=lambda one: one.job.ended_ms):
            record = JobRecord(stored.number, stored.job)
            record.told = stored.job
            record.encoded()
            self._enter(record)
        self._numbers.sort()

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def living(self) -> int:
        """How many have not ended."""
        return len(self._by_id) - len(self._ended)

    def _enter(self, record: JobRecord) -> None:
        row = record.row
        self._by_id[row.submission_id] = self._by_number[record.number] = record
        self._numbers.append(record.number)
        self._of_actors[row.actor_id] = record
        self.note_driver(record)
        if record.ended:
            self.note_end(record)

    def add(self, row: m.SubmittedJob) -> JobRecord:
        """There is another job."""
        record = JobRecord(self._numbers[-1] + 1 if self._numbers else 1, row)
        self._enter(record)
        return record

    def remove(self, record: JobRecord) -> None:
        """A job is forgotten."""
        row = record.row
        if self._by_id.get(row.submission_id) is not record:
            return
        del self._by_id[row.submission_id], self._by_number[record.number]
        del self._numbers[bisect_left(self._numbers, record.number)]
        del self._of_actors[row.actor_id]
        if self._of_drivers.get(row.driver_id) is record:
            del self._of_drivers[row.driver_id]
        if self._ended.pop(record.number, None) is not None:
            self._ended_bytes -= record.size

    def note_driver(self, record: JobRecord) -> None:
        """Its command has connected a driver."""
        if record.row.driver_id:
            self._of_drivers[record.row.driver_id] = record

    def note_end(self, record: JobRecord) -> None:
        """It has ended, and its size will not change."""
        self._ended[record.number] = record
        self._ended_bytes += record.size

    def surplus(self) -> list[JobRecord]:
        """Those whose ends are the oldest, as far as there are too many, or they are too large."""
        found = []
        number, size = len(self._ended), self._ended_bytes
        for record in self._ended.values():
            if number <= limits.JOBS_ENDED_MAX and size <= limits.JOBS_ENDED_BYTES:
                break
            found.append(record)
            number, size = number - 1, size - record.size
        return found

    # ---- looks -----------------------------------------------------------------------------

    def get(self, submission_id: str) -> JobRecord | None:
        """The job of that id."""
        return self._by_id.get(submission_id)

    def find(self, word: str) -> JobRecord | None:
        """The job of that submission id, or of the driver with that id in hex digits."""
        found = self._by_id.get(word)
        if found is None and len(word) == 32:
            try:
                found = self._of_drivers.get(bytes.fromhex(word))
            except ValueError:
                return None
        return found

    def of_actor(self, actor_id: bytes) -> JobRecord | None:
        """The job that the actor supervises."""
        return self._of_actors.get(actor_id)

    def unfinished(self) -> list[JobRecord]:
        """Those that have not ended."""
        return [one for one in self._by_id.values() if not one.ended]

    def page(self, after: int) -> tuple[list[m.SubmittedJob], int]:
        """Durable rows of jobs with higher numbers, some of them; and the last number, if there
        are more."""
        place = bisect_right(self._numbers, after)
        rows: list[m.SubmittedJob] = []
        size = 0
        while place < len(self._numbers):
            number = self._numbers[place]
            record = self._by_number[number]
            if rows and (
                len(rows) >= limits.JOBS_TOLD_MAX or size + record.size > limits.JOBS_TOLD_BYTES
            ):
                return rows, self._numbers[place - 1]
            if record.told is not None:
                rows.append(record.told)
                size += record.size
            place += 1
        return rows, 0
