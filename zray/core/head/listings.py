"""Lists and summaries of what there is and was, a bounded part of them in each turn of the head.

Owns the questions that wait for their turn and what lists that are read go on with: once begun, a
list has each thing once, whatever comes and goes meanwhile. What a row has is `state_rows`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from zray import limits
from zray.core.head.history import History
from zray.core.head.members import Member
from zray.core.head.state_filters import OWN_ID, Test, compiled
from zray.core.head.state_rows import StateRows
from zray.core.head.tables import Tables
from zray.core.head.task_table import TaskTable
from zray.core.machine import NEVER
from zray.errors import InternalFaultError, StateQueryError
from zray.protocol import messages as m

FIELDS = {number: name for name, number in m.KINDS.items()}  # of LISTED


class Present:
    """Things that there were when the list began; those that are gone by now are left out."""

    def __init__(self, ids: list[bytes], row: Callable[[bytes], Any]) -> None:
        self._ids = ids
        self._row = row

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, place: int, count: int) -> tuple[list[Any], int, bool]:
        """So many at most from that place on, None for one that is gone; the next place; and
        whether that was all."""
        rows = [self._row(one) for one in self._ids[place : place + count]]
        place += len(rows)
        return rows, place, place >= len(self._ids)


class Past:
    """What was over when the list began, the latest first. ``needle`` is in all that is wanted."""

    def __init__(self, history: History[Any], needle: bytes) -> None:
        self._history = history
        self._end = history.end
        self._needle = needle

    def __len__(self) -> int:
        return len(self._history)

    def read(self, place: int, count: int) -> tuple[list[Any], int, bool]:
        """As ``Present.read``; ``place`` counts from the end."""
        blocks = limits.LISTED_LOOK_BLOCKS if self._needle else 1
        history = self._history
        rows, position = history.before(self._end - place, count, self._needle, blocks)
        return rows, self._end - position, position <= history.start


Section = Present | Past


class Reading:
    """A list that has begun. ``used``: when it was read last. ``total``: things of its kind."""

    def __init__(self, number: int, kind: int, sections: list[Section], total: int = -1) -> None:
        self.number = number
        self.kind = kind
        self.sections = sections
        self.total = sum(map(len, sections)) if total < 0 else total
        self.items = sum(len(one) for one in sections if isinstance(one, Present))
        self.used = 0.0


class Work:
    """A question in its turn: where its reading is, and what it has found.

    ``begin``: makes the reading, once it is begun. ``limit``: of rows; 0: a summary, which has
    groups.
    """

    def __init__(
        self, asker: bytes, seq: int, begin: Callable[[], Reading], tests: list[Test], limit: int
    ) -> None:
        self.asker = asker
        self.seq = seq
        self.tests = tests
        self.limit = limit
        self.begin = begin
        self.section = 0
        self.place = 0
        self.rows: list[Any] = []
        self.groups: dict[tuple[str, str], dict[str, int]] = {}
        self.bytes: dict[tuple[str, str], int] = {}
        self._reading: Reading | None = None

    @property
    def reading(self) -> Reading:
        """What it reads."""
        if self._reading is None:
            self._reading = self.begin()
        return self._reading

    def over(self) -> bool:
        """Whether all was read."""
        return self.section >= len(self.reading.sections)


class Listings:
    """``tasks``: those of the head that ``tables`` are of; ``rows``: what there is of each thing.

    ``handlers``: who takes what is asked here, and what there is to be listed.
    """

    def __init__(self, tables: Tables, tasks: TaskTable, rows: StateRows) -> None:
        self._outbox = tables.outbox
        self._members = tables.members
        self._objects = tables.objects
        self._actors = tables.actor_table
        self._events = tables.events
        self._placement = tables.placement
        self._tasks = tasks
        self._rows = rows
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            m.List: self.on_list,
            m.Summarize: self.on_summarize,
            m.TaskReport: tables.events.on_task_report,
        }
        self._work: deque[Work] = deque()  # not begun
        self._begun: deque[Work] = deque()  # each has a turn, in turn
        self._waiting: dict[bytes, int] = {}  # how many questions, by asker
        self._open: OrderedDict[int, Reading] = OrderedDict()  # the one used last is the last
        self._numbers = tables.epoch << 24  # another head's cursors are none of this one's

    # ---- questions -------------------------------------------------------------------------

    def on_list(self, member: Member, message: m.List, now: float) -> None:
        """Somebody wants rows of a kind."""
        self._take(member, message, lambda: self._listing(member, message, now))

    def on_summarize(self, member: Member, message: m.Summarize, now: float) -> None:
        """Somebody wants to know how many there are."""
        self._take(member, message, lambda: self._summing(member, message))

    def _take(self, member: Member, message: m.Message, work: Callable[[], Work]) -> None:
        """Have it answered in its turn, or refuse it."""
        asker = member.process_id
        try:
            waiting = self._waiting.get(asker, 0)
            if waiting >= limits.LISTS_WAITING_MAX or len(self._work) >= limits.LISTS_ALL_MAX:
                raise StateQueryError("too many lists are asked for at a time; ask again later")
            self._work.append(work())
            self._waiting[asker] = waiting + 1
        except StateQueryError as error:
            text = error.args[0]
            self._outbox.send(asker, m.Rejected(0, message.seq, error.code, text))

    def _listing(self, member: Member, message: m.List, now: float) -> Work:
        tests, needle = compiled(message.kind, message.filters)
        if message.only:
            tests.append(lambda row: getattr(row, OWN_ID[message.kind]) == message.only)
            needle = message.only
        kind, most = message.kind, limits.LISTED_ROWS_MAX
        limit = min(message.limit or most, most)
        if not message.cursor:

            def begin() -> Reading:
                self._numbers += 1
                if kind == m.TASKS and any(_is_running(one) for one in message.filters):
                    return self._running(message.only)
                sections = self._sections(kind, needle, message.only)
                return Reading(self._numbers, kind, sections)

            return Work(member.process_id, message.seq, begin, tests, limit)
        number, section, place = _split(message.cursor)
        reading = self._open.get(number)
        if reading is None or reading.kind != kind:
            raise StateQueryError(
                "the list is not known any more: it was not read for too long, or the head was "
                "restarted; ask for it from its beginning"
            )
        found = reading
        work = Work(member.process_id, message.seq, lambda: found, tests, limit)
        work.section, work.place = section, place
        return work

    def _summing(self, member: Member, message: m.Summarize) -> Work:
        kind = message.kind
        if kind not in (m.TASKS, m.ACTORS, m.OBJECTS):
            raise StateQueryError("there are summaries of tasks, actors and objects alone")

        def begin() -> Reading:
            if kind == m.TASKS:  # of those that are over it is known how many there were
                return Reading(0, kind, [self._unfinished(b"")])
            return Reading(0, kind, self._sections(kind, b"", b""))

        return Work(member.process_id, message.seq, begin, [], 0)

    # ---- what is read ----------------------------------------------------------------------

    def _unfinished(self, only: bytes) -> Present:
        told = [one for one in self._events.tasks.running() if one not in self._tasks]
        return self._present(chain(self._tasks, told), self._rows.task, only)

    def _running(self, only: bytes) -> Reading:
        """What runs, as was told last: nobody has to look through all others for that."""
        told = self._events.tasks
        unfinished = len(self._tasks) + sum(1 for one in told.running() if one not in self._tasks)
        total = unfinished + len(told.failed) + len(told.finished)
        sections: list[Section] = [self._present(told.running(), self._rows.task, only)]
        return Reading(self._numbers, m.TASKS, sections, total)

    @staticmethod
    def _present(ids: Iterable[bytes], row: Callable[[bytes], Any], only: bytes) -> Present:
        return Present([only] if only else [*ids], row)

    def _sections(self, kind: int, needle: bytes, only: bytes) -> list[Section]:
        """Where things of a kind are found; with ``only`` that one."""
        events, rows, present = self._events, self._rows, self._present
        if kind == m.TASKS:
            past = [events.tasks.failed, events.tasks.finished]
            return [self._unfinished(only), *(Past(one, needle) for one in past)]
        if kind == m.ACTORS:
            return [present(self._actors, rows.actor, only), Past(events.actors, needle)]
        if kind == m.OBJECTS:
            return [present(self._objects.records, rows.object, only)]
        if kind == m.NODES:
            return [present(self._members.nodes, rows.node, only), Past(events.nodes, needle)]
        if kind == m.WORKERS:
            ids = chain(self._members.jobs, events.alive)
            return [present(ids, rows.worker, only), Past(events.workers, needle)]
        if kind == m.JOBS:
            return [present(self._members.jobs, rows.job, only), Past(events.jobs, needle)]
        if kind == m.GROUPS:
            ids = chain(self._placement.ids(), self._placement.removed)
            return [present(ids, rows.placement_group, only)]
        return [Past(events.happened, needle)]

    def _keep(self, reading: Reading, now: float) -> None:
        """It goes on later, unless too many others do."""
        reading.used = now
        self._open[reading.number] = reading
        self._open.move_to_end(reading.number)
        while len(self._open) > 1 and (
            len(self._open) > limits.LISTS_OPEN_MAX
            or sum(one.items for one in self._open.values()) > limits.LISTS_OPEN_ITEMS_MAX
        ):
            self._open.popitem(last=False)

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Go on with the question whose turn it is, a bounded part of its way."""
        self._events.step(now)
        while self._open and next(iter(self._open.values())).used < now - limits.LISTS_OPEN_S:
            self._open.popitem(last=False)
        if self._work and len(self._begun) < limits.LISTS_BEGUN_MAX:
            self._begun.append(self._work.popleft())
        if not self._begun:
            return
        self._rows.forget_reasons()
        work = self._begun.popleft()
        try:
            ended = self._go_on(work)
        except Exception:
            self._answered(work)
            text = "the head failed while it made the list; its log has more"
            self._outbox.send(work.asker, m.Rejected(0, work.seq, InternalFaultError.code, text))
            raise
        if not ended:
            self._begun.append(work)
            return
        self._answered(work)
        if work.limit:
            self._answer_list(work, now)
        else:
            self._answer_summary(work)

    def _answered(self, work: Work) -> None:
        self._waiting[work.asker] -= 1
        if not self._waiting[work.asker]:
            del self._waiting[work.asker]

    def _go_on(self, work: Work) -> bool:
        """Whether it can be answered by now."""
        look = limits.LISTED_LOOK_ROWS
        while look > 0 and not work.over():
            section = work.reading.sections[work.section]
            found, work.place, ended = section.read(work.place, look)
            look -= len(found) or look
            left = None
            if work.limit:
                left = self._choose(work, found)
            else:
                self._sum(work, [row for row in found if row is not None])
            if ended and not left:
                work.section, work.place = work.section + 1, 0
            elif left:
                work.place -= left  # which the next page has
            if left is not None:
                return True
        return work.over()

    @staticmethod
    def _choose(work: Work, found: list[Any]) -> int | None:
        """Take the rows that pass; if the page is full, how many have not been looked at."""
        for at, row in enumerate(found, 1):
            if row is not None and all(test(row) for test in work.tests):
                work.rows.append(row)
                if len(work.rows) == work.limit:
                    return len(found) - at
        return None

    def _sum(self, work: Work, found: list[Any]) -> None:
        for row in found:
            if isinstance(row, m.ListedTask):
                key = (row.name, row.type)
            elif isinstance(row, m.ListedActor):
                key = (row.class_name, "ACTOR")
            else:
                key = (row.reference_type, "OBJECT")
                work.bytes[key] = work.bytes.get(key, 0) + row.size
            _count(work.groups, key, row.state)

    def _answer_list(self, work: Work, now: float) -> None:
        reading, cursor = work.reading, b""
        if not work.over():
            cursor = _joined(reading.number, work.section, work.place)
            self._keep(reading, now)
        elif reading.number in self._open:
            reading.used = now  # its last page may be asked for again
        answer = m.Listed(0, work.seq, reading.kind, reading.total, cursor)
        if reading.kind == m.TASKS:
            answer.dropped, answer.unlisted = self._events.tasks.dropped, self._rows.unlisted()
        setattr(answer, FIELDS[reading.kind], work.rows)
        self._outbox.send(work.asker, answer)

    def _answer_summary(self, work: Work) -> None:
        kind, groups = work.reading.kind, work.groups
        answer = m.Summary(0, work.seq, kind, sum(map(len, work.reading.sections)), [])
        if kind == m.TASKS:
            for name, type_, finished, failed in self._events.tasks.tallies():
                _count(groups, (name, type_), m.ENDED_WELL, finished)
                _count(groups, (name, type_), m.ENDED_BADLY, failed)
                answer.total += finished + failed
            answer.dropped, answer.unlisted = self._events.tasks.dropped, self._rows.unlisted()
        answer.groups = [
            m.Group(*key, [*states.items()], work.bytes.get(key, 0))
            for key, states in groups.items()
        ]
        self._outbox.send(work.asker, answer)

    def deadline(self) -> float:
        """When ``step`` has something to do: at once, if somebody waits."""
        return 0.0 if self._work or self._begun else NEVER


def _count(
    groups: dict[tuple[str, str], dict[str, int]], key: tuple[str, str], state: str, more: int = 1
) -> None:
    if not more:
        return
    if key not in groups and len(groups) >= limits.TASK_NAMES_MAX:
        key = ("(others)", key[1])
    states = groups.setdefault(key, {})
    states[state] = states.get(state, 0) + more


def _is_running(one: m.Filter) -> bool:
    return one.key == "state" and one.value.upper() == m.RUNNING and not one.negated


def _joined(number: int, section: int, place: int) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in (number, section, place))


def _split(cursor: bytes) -> tuple[int, int, int]:
    if len(cursor) != 24:
        raise StateQueryError("that is no cursor of a list")
    number, section, place = (int.from_bytes(cursor[at : at + 8], "big") for at in (0, 8, 16))
    return number, section, place
