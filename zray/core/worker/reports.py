"""What a worker tells of tasks and calls that have ended in it, and of what runs.

Nothing is told while tasks run but now and then: what has run is noted for a timeline anyway, and
the latest of that is told one by one, with all failures; the others are counted.
"""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.core import failures
from zray.core.identity import Identity
from zray.protocol import messages as m
from zray.protocol.histogram import Histogram

CALL = -1  # in place of an attempt
NAMES_MAX = 1000  # of functions of which is known what they take

# Name, task, when it began (of a clock of the shell's) and for how many seconds it ran, how many
# attempts were before it, or CALL, and its parent.
Ran = tuple[str, bytes, float, float, int, bytes]


class Reports:
    """Of one worker.

    Attributes:
        spans: the last that have run.
        due: somebody is going to ask for a ``report``.
        urgent: something has failed: that is to be told before whoever waits for it knows.
        young: something ran, when that was told last, that had not run for long.
        silent: nothing is to be told of what runs.
        leased: nobody else sees how tasks end here.
        actor: that this worker is, and its class.
    """

    def __init__(self, me: Identity) -> None:
        self._me = me
        self.spans: deque[Ran] = deque(maxlen=limits.SPANS_KEPT_MAX)
        self.due = False
        self.urgent = False
        self.young = False
        self.silent = False
        self.leased = False
        self.actor: tuple[bytes, str] = (b"", "")
        self.pause_s = limits.REPORT_FIRST_S  # until the next is worth while
        self._resources: dict[str, m.Amounts] = {}  # by name of the function
        self._reported_at = 0.0
        self._room = float(limits.REPORT_WORKER_ROWS)  # of ended tasks that may be told
        self._room_at = 0.0
        self._told_until = 0.0  # what has ended by then was told, or counted
        self._begun = 0  # as it was then
        self._failed: dict[bytes, tuple[Ran, str, str]] = {}  # since; code and text
        self._tallies: dict[tuple[str, str, str], int] = {}
        self._calls: dict[str, list[int]] = {}  # by name: ended, and of these the told ones
        self._calls_told = 0

    # ---- notes -----------------------------------------------------------------------------

    def shows(self, template: m.Template) -> None:
        """Tasks of this template run from now on."""
        self.silent = not template.events
        if len(self._resources) >= NAMES_MAX:
            self._resources.clear()
        self._resources[template.name] = template.resources

    def failed(self, ran: Ran, data: bytes) -> None:
        """An attempt has ended, as is noted, with an error, as ``data`` has it."""
        if self.silent:
            return
        name, task_id, began, seconds, attempt, _ = ran
        self.urgent = began + seconds - self._reported_at > limits.REPORT_URGENT_S
        record = failures.read(data)
        text = f"{record.type_name}: {record.message}" if record.type_name else record.message
        if len(self._failed) < limits.REPORT_WORKER_ROWS:
            self._failed[task_id] = (ran, record.code[:64], text[: limits.BRIEF_TEXT_MAX])
        if attempt == CALL or self.leased:
            kind = m.ACTOR_TASK if attempt == CALL else m.NORMAL_TASK
            self._count(name, kind, m.ENDED_BADLY, 1)
            self._count(name, kind, m.ENDED_WELL, -1)  # it is counted there, as all are

    def _count(self, name: str, kind: str, state: str, more: int) -> None:
        key = (name[: limits.NAME_MAX], kind, state)
        self._tallies[key] = self._tallies.get(key, 0) + more

    def calls_of(self, name: str) -> list[int]:
        """How many calls of a method have ended, to be counted by whoever runs them."""
        return self._calls.setdefault(name, [0, 0])

    # ---- telling ---------------------------------------------------------------------------

    def report(
        self,
        begun: int,
        running: list[Ran],
        place: tuple[bytes, bytes],
        now: float,
        day_time_s: float,
    ) -> m.TaskReport:
        """What has not been told. ``begun``: tasks in this worker's life, but for those that run.

        ``running``: since when ended by, with 0 seconds; ``place``: node and job;
        ``day_time_s``: seconds since 1970 when the clock of the notes was 0.
        """
        self.due = self.urgent = False
        self._reported_at = now
        fresh = []
        for one in reversed([*self.spans]):
            if one[2] + one[3] <= self._told_until:
                break
            fresh.append(one)
        ended = begun - self._begun
        self._begun = begun
        for name, counts in self._calls.items():
            if more := counts[0] - counts[1]:
                counts[1] = counts[0]
                ended += more
                self._count(name, m.ACTOR_TASK, m.ENDED_WELL, more)
        if fresh:
            self._told_until = fresh[0][2] + fresh[0][3]
        rows = [
            self._row(one, place, day_time_s, ended=True)
            for one in reversed(self._chosen(fresh, now))
        ]
        runs = [
            self._row(one, place, day_time_s, ended=False)
            for one in running[: limits.REPORT_RUNNING_MAX]
            if now - one[2] >= limits.REPORT_RUNNING_S
        ]
        self.young = len(runs) < min(len(running), limits.REPORT_RUNNING_MAX)
        self._failed.clear()
        tallies = [m.Tally(*key, more) for key, more in self._tallies.items() if more]
        self._tallies.clear()
        busy = ended > limits.REPORT_BUSY_TASKS
        self.pause_s = limits.REPORT_BUSY_S if busy else limits.REPORT_FIRST_S
        dropped = max(0, ended - len(rows))
        told = (0, rows, runs, self._me.process_id, tallies, dropped)
        return m.TaskReport(*told, durations=self._durations(fresh, ended))

    def _durations(self, fresh: list[Ran], ended: int) -> list[m.Durations]:
        """How long what has ended took: where it was more than is noted, that stands for all."""
        if not fresh:
            return []
        kinds: dict[str, Histogram] = {}
        for _, task_id, _, seconds, attempt, _ in fresh:
            kind = m.ACTOR_TASK if attempt == CALL else m.NORMAL_TASK
            if attempt != CALL and task_id == self.actor[0]:
                kind = m.ACTOR_CREATION_TASK
            histogram = kinds.get(kind)
            if histogram is None:
                histogram = kinds[kind] = Histogram(limits.TASK_BUCKETS_S)
            histogram.add(seconds)
        times = max(1.0, ended / len(fresh))
        return [
            m.Durations(kind, [round(count * times) for count in one.counts], one.total * times)
            for kind, one in kinds.items()
        ]

    def _chosen(self, fresh: list[Ran], now: float) -> list[Ran]:
        """Of what has ended, the latest first, as much as may be told; all that has failed."""
        most = float(limits.REPORT_WORKER_ROWS)
        earned = (now - self._room_at) * limits.REPORT_WORKER_ROWS_PER_S
        self._room, self._room_at = min(most, self._room + earned), now
        told = fresh[: int(self._room)]
        self._room -= len(told)
        here = {one[1] for one in told} if self._failed else ()
        failed = [ran for task_id, (ran, _, _) in self._failed.items() if task_id not in here]
        return [*told, *reversed(failed)]

    def _row(
        self, ran: Ran, place: tuple[bytes, bytes], day_time_s: float, *, ended: bool
    ) -> m.ListedTask:
        name, task_id, began, seconds, attempt, parent = ran
        actor_id, class_name = self.actor
        kind = m.ACTOR_TASK if attempt == CALL else m.NORMAL_TASK
        if attempt != CALL and task_id == actor_id:
            name, kind = f"{class_name}.__init__", m.ACTOR_CREATION_TASK
        failure = self._failed.get(task_id) if ended else None
        _, code, text = failure or (ran, "", "")
        state = (m.ENDED_BADLY if failure else m.ENDED_WELL) if ended else m.RUNNING
        return m.ListedTask(
            task_id=task_id,
            attempt=max(0, attempt),
            name=name[: limits.NAME_MAX],
            state=state,
            type=kind,
            job_id=place[1],
            actor_id=actor_id,
            parent_task_id=parent,
            node_id=place[0],
            worker_id=self._me.process_id,
            pid=self._me.pid,
            started_s=began + day_time_s,
            ended_s=began + day_time_s + seconds if ended else 0.0,
            error_type=m.ERROR_TYPES.get(code, ""),
            error_code=code,
            error_message=text,
            resources=self._resources.get(name, []),
        )
