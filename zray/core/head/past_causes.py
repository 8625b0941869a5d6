"""What has become of what is over: tasks, jobs, actors and workers, looked for among the last ones,
a part in each turn."""

from __future__ import annotations

from typing import Any

from zray import limits
from zray.core.causes import FAILED, READY, age, cause
from zray.core.head.events import Events
from zray.core.head.history import History
from zray.core.head.members import Members
from zray.core.head.shortages import job_named
from zray.errors import TaskCancelledError
from zray.ids import origin_of
from zray.protocol import messages as m

ENDED = "ENDED"
DEAD = "DEAD"


class PastSearch:
    """For what has the id of ``unknown``, of a task its last attempt; ``unknown`` is told if there
    is none. ``digits``: the beginning of such an id instead, in hex; of several, the last."""

    def __init__(self, events: Events, members: Members, unknown: m.Cause, digits: str) -> None:
        self._events = events
        self._members = members
        self._unknown = unknown
        self._digits = digits
        self._whole = unknown.id
        self._needle = bytes.fromhex(digits[: len(digits) & ~1]) or unknown.id
        things: list[History[Any]] = [events.jobs, events.actors, events.workers]
        tasks: list[History[Any]] = [events.tasks.failed, events.tasks.finished]
        self._left = things if digits else things + tasks
        self._place = self._left[0].end

    def go_on(self) -> m.Cause | None:
        """Look at some more; None: there are more."""
        while self._left:
            history = self._left[0]
            of_tasks = history in (self._events.tasks.failed, self._events.tasks.finished)
            needle = origin_of(self._whole) if of_tasks else self._needle
            rows, self._place = history.before(
                self._place, limits.LISTED_LOOK_ROWS, needle, limits.WHY_LOOK_BLOCKS
            )
            for row in rows:
                told = self._told(row, needle)
                if told is not None:
                    return told
            if self._place > history.start:
                return None
            del self._left[0]
            if self._left:
                self._place = self._left[0].end
        return self._unknown

    def _told(self, row: Any, wanted: bytes) -> m.Cause | None:
        """What has become of it, if it is what is looked for."""
        if isinstance(row, m.ListedTask):
            return self._task(row) if row.task_id == wanted else None
        if isinstance(row, m.ListedJob):
            return self._job(row) if self._is_meant(row.job_id) else None
        if isinstance(row, m.ListedActor):
            return self._actor(row) if self._is_meant(row.actor_id) else None
        return self._worker(row) if self._is_meant(row.worker_id) else None

    def _is_meant(self, an_id: bytes) -> bool:
        return an_id.hex().startswith(self._digits) if self._digits else an_id == self._whole

    def _since_s(self, ended_s: float) -> float:
        return max(0.0, self._events.now_s() - ended_s)

    def _job(self, row: m.ListedJob) -> m.Cause:
        name = job_named(row.job_id, row.entrypoint)
        what = {"SUCCEEDED": "has ended", "STOPPED": "was stopped"}.get(row.status, "was lost")
        text = f"{name}, pid {row.pid} on {row.host}, {what}"
        if row.detached:
            text = f"{name}, of a detached actor, {what}"
        details = [("tasks", f"{row.finished:,} finished")] if row.finished else []
        if row.submission_id:
            details.append(("submitted as", row.submission_id))
        if row.ended_s > row.started_s:
            details.append(("it ran for", age(row.ended_s - row.started_s)))
        return cause(
            *("job", row.job_id, name, FAILED if row.status == "FAILED" else ENDED),
            f"{text}: {row.message}" if row.message else text,
            since_s=self._since_s(row.ended_s),
            details=details,
        )

    def _actor(self, row: m.ListedActor) -> m.Cause:
        text = f"actor {row.class_name} is dead: {row.death_cause or 'it has ended'}"
        details = [("name", row.name)] if row.name else []
        since_s = self._since_s(row.ended_s)
        me = ("actor", row.actor_id, row.class_name, DEAD, text)
        return cause(*me, since_s=since_s, details=details)

    def _worker(self, row: m.ListedWorker) -> m.Cause:
        why = ": ".join(filter(None, (row.exit_type, row.exit_detail)))
        text = f"worker pid {row.pid} on {row.host} has ended{why and ', '}{why}"
        me = ("worker", row.worker_id, "", ENDED, text)
        return cause(*me, since_s=self._since_s(row.ended_s))

    def _task(self, row: m.ListedTask) -> m.Cause:
        failed = row.state == m.ENDED_BADLY
        details = [("code", row.error_code)] if row.error_code else []
        node = self._members.node_rows.get(row.node_id)
        where = node.name if node is not None else row.node_id.hex()
        if where:
            details.append(("ran on", f"{where}, pid {row.pid}" if row.pid else where))
        if row.attempt > 0:
            details.append(("attempt", str(row.attempt)))
        text = f"{row.name} failed: {row.error_message}" if failed else ""
        return cause(
            *("task", row.task_id, row.name, FAILED if failed else READY),
            text or f"{row.name} has ended well, and its value was let go",
            since_s=self._since_s(row.ended_s),
            details=details,
            advice="zray replay runs it again here" if failed and _has_run(row) else "",
        )


def _has_run(row: m.ListedTask) -> bool:
    """To an end of its own: of what was cancelled nothing is kept."""
    return bool(row.pid) and row.error_code != TaskCancelledError.code
