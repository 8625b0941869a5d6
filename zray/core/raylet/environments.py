"""The runtime environments of a node's workers: which are there, being built, failed, in use.

An environment consists of parts, each built once however many environments have it, by a process of
its own. Tasks wait for what is not there without holding anything. What nobody uses stays until the
bytes of all parts pass a bound; the one that was used longest ago goes first.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from zray import limits
from zray.core.environments import described, in_words, part_id
from zray.core.machine import NEVER
from zray.core.raylet.effects import BuildPart, EndBuild, RemovePart
from zray.core.raylet.lending import Lending
from zray.core.raylet.local_records import LocalTask, PoolKey
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.objects import LocalObjects
from zray.core.resources import BUILT, ENVIRONMENT
from zray.protocol import messages as m
from zray.protocol.errors import cut_text

Arrived = Callable[[str], None]  # why it cannot be built; empty: it is there

QUEUED, FETCHING, BUILDING, READY, FAILED = "QUEUED", "FETCHING", "BUILDING", "READY", "FAILED"
_UNDER_WAY = (QUEUED, FETCHING, BUILDING)
_TOLD = (m.PIP, m.UV)  # kinds of which drivers hear how far they are


class Prepared(NamedTuple):
    """What a worker of an environment starts with: its directory, or empty; what is before all
    else on its import path; the part whose interpreter it is, or empty."""

    directory: str
    paths: list[str]
    interpreter: str


class Part:
    """One part. ``sources``: objects that its package is, the last one named last."""

    def __init__(self, number: str, message: m.EnvironmentPart) -> None:
        self.part_id = number
        self.message = message
        self.timeout_s = 0.0  # the longest that those have given who wait; -1: any time
        self.state = FAILED
        self.since = -NEVER  # of that state
        self.seconds = 0.0  # that building took
        self.bytes = 0
        self.place = ""
        self.text = ""
        self.lines = 0  # told to drivers
        self.pid = 0  # of the process that builds it, or has
        self.used_at = 0.0
        self.sources: dict[bytes, None] = {}


class Record:
    """An environment of a job: its parts, and who waits for them."""

    environment: m.Environment  # as it was named last

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.waiting: dict[bytes, Arrived] = {}  # by task

    def is_ready(self) -> bool:
        return all(part.state == READY for part in self.parts)


class Environments:
    """Of one incarnation of the raylet.

    Args:
        node: its name, for texts.
        effect: takes what the shell is to do.
        tell_head: as ``HeadSession.tell``.
        bytes_max: all parts together have more only while they are in use.

    Attributes:
        records: by job and name, those named last at the end.
        parts: by id, those used last at the end.
        again: has those of a job's tasks wait that have not started and need that environment.
    """

    def __init__(
        self,
        node: str,
        objects: LocalObjects,
        scheduler: LocalScheduler,
        lending: Lending,
        effect: Callable[[Any], None],
        tell_head: Callable[[m.Message], None],
        bytes_max: int = limits.ENVIRONMENTS_BYTES_MAX,
    ) -> None:
        self._node = node
        self._objects = objects
        self._scheduler = scheduler
        self._lending = lending
        self._effect = effect
        self._tell_head = tell_head
        self._bytes_max = bytes_max
        self.records: dict[tuple[bytes, str], Record] = {}
        self.parts: dict[str, Part] = {}
        self.bytes = 0
        self._ready = 0  # parts
        self._queue: dict[str, None] = {}
        self._busy: dict[str, None] = {}  # being fetched or built
        self._changed = False
        self._asked: list[tuple[LocalTask, Arrived]] = []
        self._lost: dict[tuple[bytes, str], None] = {}
        self.again: Callable[[bytes, str], None] = lambda job_id, name: None

    # ---- asked for -------------------------------------------------------------------------

    def is_ready(self, job_id: bytes, name: str) -> bool:
        """Whether workers of that environment can start now."""
        if not name.startswith(BUILT):
            return True
        record = self.records.get((job_id, name))
        return record is not None and record.is_ready()

    def wait(self, task: LocalTask, arrived: Arrived) -> None:
        """Have a task's environment built; ``arrived`` hears of it, in a later step."""
        self._asked.append((task, arrived))

    def _ask(self, task: LocalTask, arrived: Arrived, now: float) -> None:
        record = self._record(task.assignment.job_id, task.template.message)
        for part in record.parts:
            if part.state == FAILED:
                if now < part.since + limits.ENVIRONMENT_RETRY_S:
                    arrived(part.text)
                    return
                self._enqueue(part, record.environment.timeout_s, now)
            elif part.state in _UNDER_WAY:
                part.timeout_s = _longer(part.timeout_s, record.environment.timeout_s)
        if record.is_ready():
            arrived("")
        else:
            self._lending.waits(task.task_id, task.template.needs, now)
            record.waiting[task.task_id] = arrived

    def _record(self, job_id: bytes, template: m.Template) -> Record:
        name = name_in(template)
        environment = template.environment or m.Environment()
        record = self.records.pop((job_id, name), None)
        if record is None:
            record = Record([self._part(message) for message in environment.parts])
        record.environment = environment  # those that differ in their timeouts have one name
        for part, message in zip(record.parts, environment.parts, strict=False):
            if message.object_id:
                part.sources.pop(message.object_id, None)
                part.sources[message.object_id] = None
                if len(part.sources) > limits.PACKAGE_SOURCES_MAX:
                    del part.sources[next(iter(part.sources))]
        self.records[job_id, name] = record
        self._forget_some()
        return record

    def _part(self, message: m.EnvironmentPart) -> Part:
        number = part_id(message)
        part = self.parts.get(number)
        if part is None:
            part = self.parts[number] = Part(number, message)
        return part

    def _enqueue(self, part: Part, timeout_s: float, now: float) -> None:
        part.state, part.since, part.lines = QUEUED, now, 0
        part.timeout_s = timeout_s  # an earlier one may have had less
        self._queue[part.part_id] = None

    def job_ended(self, job_id: bytes) -> None:
        """Nobody needs its environments; what they are made of stays for others, if it is there."""
        for key in [key for key in self.records if key[0] == job_id]:
            del self.records[key]
        self._changed = True

    def _forget_some(self) -> None:
        """Of environments that nobody uses, and of parts that are not there, only so many."""
        if len(self.records) > limits.ENVIRONMENTS_KEPT:
            used = self._used()
            for key in [*self.records]:
                if len(self.records) <= limits.ENVIRONMENTS_KEPT:
                    break
                if key[1] not in used and not self.records[key].waiting:
                    del self.records[key]
            self._changed = True

    # ---- built -----------------------------------------------------------------------------

    def prepared(self, key: PoolKey) -> Prepared | None:
        """What workers of a pool start with; None: it is not there (any more)."""
        record = self.records.get((key[0], key[3]))
        if record is None or not record.is_ready():
            return None
        directory, paths, interpreter = "", [], ""
        for part in record.parts:
            kind = part.message.kind
            if kind == m.WORKING_DIR:
                directory = part.place
            elif kind == m.PY_MODULE:
                paths.append(part.place)
            else:
                interpreter = part.part_id
        return Prepared(directory, [*paths, *([directory] if directory else [])], interpreter)

    def lacks(self, key: PoolKey, is_there: Callable[[str, str], bool]) -> bool:
        """Whether something has been removed of what workers of a pool start with, or it is not
        there as yet; then their tasks wait until it is built again.

        ``is_there``: whether what was built of a part, in that place, still is.
        """
        record = self.records.get((key[0], key[3]))
        for part in record.parts if record is not None else ():
            if part.state == READY and not is_there(part.part_id, part.place):
                self._remove(part)
        if self.is_ready(key[0], key[3]):
            return False
        self._lost[key[0], key[3]] = None
        return True

    def built(self, number: str, size: int, place: str, now: float) -> None:
        """A part is there, in that folder."""
        part = self._ended(number)
        if part is None:
            return
        part.seconds = now - part.since
        part.state, part.since, part.text = READY, now, ""
        part.bytes, part.place, part.used_at = size, place, now
        self.bytes += size
        self._ready += 1
        self._say(part, [f"{in_words(part.message)} took {part.seconds:.1f} s"])
        for record in [*self.records.values()]:
            if record.waiting and record.is_ready():
                self._tell_waiting(record, "")
        self._changed = True

    def failed(self, number: str, text: str, now: float) -> None:
        """A part cannot be built; the end of ``text`` is what the build said last."""
        part = self._ended(number)
        if part is None:
            return
        part.seconds = now - part.since
        part.state, part.since = FAILED, now
        what = f"{in_words(part.message)} could not be built on node {self._node}"
        part.text = cut_text(f"{what}: {text}", 2 * limits.BUILD_TEXT_MAX)
        for record in [*self.records.values()]:
            if record.waiting and part in record.parts:
                self._tell_waiting(record, part.text)

    def _ended(self, number: str) -> Part | None:
        self._queue.pop(number, None)
        part = self.parts.get(number)
        if self._busy.pop(number, "") == "":
            return None
        return part

    @staticmethod
    def _tell_waiting(record: Record, text: str) -> None:
        waiting, record.waiting = record.waiting, {}
        for arrived in waiting.values():
            arrived(text)

    def began(self, number: str, pid: int) -> None:
        """That process builds the part."""
        part = self.parts.get(number)
        if part is not None and number in self._busy:
            part.pid = pid
            self._say(part, [f"{in_words(part.message)} begins on node {self._node}"])

    def said(self, number: str, lines: list[str]) -> None:
        """What a build says, for the drivers whose tasks wait for it."""
        part = self.parts.get(number)
        if part is not None and number in self._busy:
            self._say(part, lines)

    def _say(self, part: Part, lines: list[str]) -> None:
        lines = lines[: max(0, limits.BUILD_LINES_MAX - part.lines)]
        if part.message.kind not in _TOLD or not lines:
            return
        part.lines += len(lines)
        told = [cut_text(line, limits.BRIEF_TEXT_MAX) for line in lines]
        for job_id in {key[0]: None for key, one in self.records.items() if part in one.parts}:
            log = (0, job_id, "runtime_env", part.pid, self._node, False, told)
            self._tell_head(m.Log(*log))

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Begin what is asked for, end what takes too long, and let go of what nobody uses."""
        while self._lost:
            self.again(*self._lost.popitem()[0])
        asked, self._asked = self._asked, []
        for task, arrived in asked:
            self._ask(task, arrived, now)
        for number in [*self._busy]:
            part = self.parts[number]
            if now >= self._ends(part):
                self._effect(EndBuild(number))
                self.failed(number, _too_long(part), now)
        while self._queue and len(self._busy) < limits.ENVIRONMENT_BUILDS_MAX:
            number = next(iter(self._queue))
            del self._queue[number]
            self._begin(self.parts[number], now)
        if self._changed:
            self._changed = False
            self._let_go(now)

    def _ends(self, part: Part) -> float:
        return NEVER if part.timeout_s < 0 else part.since + part.timeout_s

    def deadline(self) -> float:
        """When ``step`` has something to do although nothing arrives."""
        if self._lost:
            return 0.0
        if not self._busy:
            return NEVER
        return min(self._ends(self.parts[number]) for number in self._busy)

    def _begin(self, part: Part, now: float) -> None:
        part.state, part.since = FETCHING, now
        self._busy[part.part_id] = None
        if not part.message.content or not part.sources:
            self._build(part, None)
            return
        oid = next(reversed(part.sources))
        if self._objects.stored.get(oid) is not None:
            self._fetched(part, oid, "", now)
        else:
            self._objects.fetch(oid, lambda outcome, text: self._fetched(part, oid, text, now))

    def _fetched(self, part: Part, oid: bytes, text: str, now: float) -> None:
        if part.state != FETCHING or part.part_id not in self._busy:
            return
        whole = self._objects.whole(oid)
        if whole is not None and not whole.kind & m.ERROR:
            self._build(part, whole.value)
            return
        part.sources.pop(oid, None)
        if part.sources:  # another program has sent the same
            self._busy.pop(part.part_id, None)
            self._begin(part, now)
            return
        lost = text or "it is not held any more"
        self.failed(
            part.part_id,
            f"the package is gone ({lost}). Whoever sent it has ended, or its node has: send it "
            "again from a program that stays connected",
            now,
        )

    def _build(self, part: Part, data: Any) -> None:
        part.state = BUILDING
        self._effect(BuildPart(part.part_id, part.message, data))

    # ---- what is in use --------------------------------------------------------------------

    def _used(self) -> set[str]:
        """Names of environments with workers, or with tasks that can start."""
        used = {slot.key[3] for slot in self._scheduler.workers.values()}
        for needs, queue in self._scheduler.queues.items():
            if queue:
                used.update(name for name, _ in needs if name.startswith(ENVIRONMENT))
        return used

    def _let_go(self, now: float) -> None:
        """Remove parts that nobody uses, while all are too many or have too many bytes; end builds
        of which no job is there any more, and forget failed ones."""
        named = {part.part_id for record in self.records.values() for part in record.parts}
        for number, part in [*self.parts.items()]:
            if number not in named and part.state != READY:
                self._give_up(part)
        if not self._are_too_many():
            return
        used = self._used()
        for (_, name), record in self.records.items():
            if name in used or record.waiting:
                for part in record.parts:
                    part.used_at = now
        for part in sorted(self.parts.values(), key=lambda one: one.used_at):
            if not self._are_too_many():
                return
            if part.state == READY and part.used_at < now:
                self._remove(part)
                if part.part_id not in named:
                    del self.parts[part.part_id]

    def _are_too_many(self) -> bool:
        return self.bytes > self._bytes_max or self._ready > limits.ENVIRONMENT_PARTS_KEPT

    def _remove(self, part: Part) -> None:
        self.bytes -= part.bytes
        self._ready -= 1
        part.state, part.since, part.bytes = FAILED, -NEVER, 0  # it is built again when wanted
        self._effect(RemovePart(part.part_id))

    def _give_up(self, part: Part) -> None:
        self._queue.pop(part.part_id, None)
        if self._busy.pop(part.part_id, "") is None:
            self._effect(EndBuild(part.part_id))
        part.state = FAILED  # what is being fetched for it comes too late
        del self.parts[part.part_id]

    def on_list(self, message: m.ListEnvironments, now: float) -> None:
        """Somebody asks what there is."""
        workers: dict[tuple[bytes, str], int] = {}
        for slot in self._scheduler.workers.values():
            key = (slot.key[0], slot.key[3])
            workers[key] = workers.get(key, 0) + 1
        latest = islice(reversed(self.records.items()), limits.ENVIRONMENTS_LISTED_MAX)
        found = [_listed(key, record, workers.get(key, 0), now) for key, record in latest]
        sizes = (len(self.records), self.bytes, self._bytes_max)
        self._tell_head(m.EnvironmentsListed(0, message.source, message.seq, found, *sizes))

    # ---- for people ------------------------------------------------------------------------

    def waits(self, task: LocalTask) -> bool:
        """Whether the task waits for its environment."""
        record = self._record_of(task)
        return record is not None and task.task_id in record.waiting

    def _record_of(self, task: LocalTask) -> Record | None:
        return self.records.get((task.assignment.job_id, task.template.builds))

    def why(self, task: LocalTask, now: float) -> str:
        """For what of its environment the task waits."""
        record = self._record_of(task)
        parts = record.parts if record is not None else ()
        part = next((one for one in parts if one.state in _UNDER_WAY), None)
        if part is None:
            return f"waits for its environment on node {self._node}"
        what, since_s = in_words(part.message), now - part.since
        if part.state == QUEUED:
            return f"waits for its environment: {what} waits on node {self._node} for other builds"
        how = "being fetched to" if part.state == FETCHING else "being built on"
        return f"waits for its environment: {what} is {how} node {self._node} for {since_s:.1f} s"


def _listed(
    key: tuple[bytes, str], record: Record, workers: int, now: float
) -> m.ListedEnvironment:
    shown = msgspec.json.encode(described(record.environment)).decode()
    if len(shown) > limits.BUILD_TEXT_MAX:
        shown = msgspec.json.encode({"too_long": len(shown)}).decode()
    # What decides on the whole: what has failed, else what is under way.
    state = READY
    for wanted in (FAILED, *_UNDER_WAY):
        if any(part.state == wanted for part in record.parts):
            state = wanted
            break
    seconds = sum(
        part.seconds if part.state in (READY, FAILED) else max(0.0, now - part.since)
        for part in record.parts
    )
    error = next((part.text for part in record.parts if part.state == FAILED), "")
    sizes = (sum(part.bytes for part in record.parts), workers, len(record.waiting))
    return m.ListedEnvironment(*key, shown, state, seconds, *sizes, error)


def name_in(template: m.Template) -> str:
    """The name of its environment, or empty."""
    return next((name for name, _ in template.resources if name.startswith(ENVIRONMENT)), "")


def _longer(one_s: float, other_s: float) -> float:
    return -1 if min(one_s, other_s) < 0 else max(one_s, other_s)


def _too_long(part: Part) -> str:
    return (
        f"it took longer than {part.timeout_s:g} s; give it more time with "
        'runtime_env={"config": {"setup_timeout_seconds": ...}}'
    )
