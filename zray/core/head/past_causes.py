"""What has become of tasks that are over: looked for among the last ones, a part in each turn."""

from __future__ import annotations

from zray import limits
from zray.core.causes import FAILED, READY, cause
from zray.core.head.events import Events
from zray.core.head.members import Members
from zray.errors import TaskCancelledError
from zray.ids import origin_of
from zray.protocol import messages as m


class PastSearch:
    """For the last attempt of the task of ``unknown``, which is told if there is none."""

    def __init__(self, events: Events, members: Members, unknown: m.Cause) -> None:
        self._events = events
        self._members = members
        self._unknown = unknown
        self._task_id = origin_of(unknown.id)
        self._left = [events.tasks.failed, events.tasks.finished]
        self._place = self._left[0].end

    def go_on(self) -> m.Cause | None:
        """Look at some more; None: there are more."""
        while self._left:
            history = self._left[0]
            rows, self._place = history.before(
                self._place, limits.LISTED_LOOK_ROWS, self._task_id, limits.WHY_LOOK_BLOCKS
            )
            for row in rows:
                if row.task_id == self._task_id:
                    return self._told(row)
            if self._place > history.start:
                return None
            del self._left[0]
            if self._left:
                self._place = self._left[0].end
        return self._unknown

    def _told(self, row: m.ListedTask) -> m.Cause:
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
            since_s=max(0.0, self._events.now_s() - row.ended_s),
            details=details,
            advice="zray replay runs it again here" if failed and _has_run(row) else "",
        )


def _has_run(row: m.ListedTask) -> bool:
    """To an end of its own: of what was cancelled nothing is kept."""
    return bool(row.pid) and row.error_code != TaskCancelledError.code
