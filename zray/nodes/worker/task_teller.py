"""What a worker tells of what has run in it: for a timeline when asked, and now and then by itself.

Owns the clock of it; what is told, `Reports` decides. With the worker's lock held.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from zray.core.identity import Identity
from zray.core.worker.kept_runs import KeptRuns
from zray.core.worker.reports import CALL, Ran, Reports
from zray.core.worker.task_inbox import TaskInbox
from zray.protocol import messages as m
from zray.runtime import session

NOWHERE = bytes(16)


class TaskTeller:
    """``tell``: to the raylet. ``remind``: have ``report`` called after so many seconds.
    ``runs_since``: as of ``Attempts``."""

    def __init__(
        self,
        me: Identity,
        task_inbox: TaskInbox,
        tell: Callable[[list[m.Message]], None],
        remind: Callable[[float], None],
    ) -> None:
        self.reports = Reports(me)
        self._me = me
        self._inbox = task_inbox
        self._tell = tell
        self._remind = remind
        self.runs_since: Callable[[bytes], float | None] = lambda task_id: None
        self.calls: Callable[[], list[Ran]] = list  # that run in this actor
        self.begun: Callable[[], int] = int  # how many tasks, in this worker's life
        self._kept = KeptRuns()
        self._only_kept = False  # nothing else is urgent

    def keeps(self) -> bool:
        """Whether one more failed attempt is to be kept. From any thread."""
        return not self.reports.silent and self._kept.admits(time.perf_counter())

    def keep(self, make: Callable[[], m.KeepRun | None]) -> None:
        """An attempt has failed, which ``make`` describes; a fault in that is nobody else's."""
        with contextlib.suppress(Exception):
            found = make()
            if found is not None:
                self._kept.add(found)
                self._only_kept = not self.reports.urgent
                self.reports.urgent = True

    def tell_failures(self) -> None:
        """Something has failed, of which the node hears before whoever waits for it."""
        if self._only_kept:
            self.reports.urgent = self._only_kept = False
            self._tell([*self._kept.take()])
        else:
            self.report()

    def remind(self) -> None:
        """Something runs, or has run: that is told after a while. From any thread, without lock."""
        self.reports.due = True
        self._remind(self.reports.pause_s)

    def report(self) -> None:
        """Tell what has not been told."""
        inbox = self._inbox
        if inbox.setup is None:
            return
        running, current = self.calls(), inbox.current
        if current is not None and not self.reports.silent:
            spec, since = current.spec, self.runs_since(current.spec.task_id)
            if since is not None:
                name = inbox.templates[spec.template_id].name
                running.append((name, spec.task_id, since, 0.0, current.failures, spec.parent))
        now = time.perf_counter()
        begun = self.begun() - (current is not None)
        place = (inbox.setup.node_id, inbox.setup.job_id)
        self._only_kept = False
        report = self.reports.report(begun, running, place, now, time.time() - now)
        self._tell([*self._kept.take(), report])
        if self.reports.young:
            self.remind()

    def report_due(self) -> None:
        """The same, if there is anything: the raylet may be about to end this process."""
        if self.reports.due:
            self.report()
        if session.unsaid:
            self._tell(session.take_unsaid(session.current()))

    def last_words(self) -> None:
        """What has run here, before this process ends."""
        if session.unsaid:
            self._tell(session.take_unsaid(session.current()))
        if self.reports.spans:
            self.report()
            self.trace(self._me.process_id, 0)

    def trace(self, target: bytes, about: int) -> None:
        """Tell ``target`` what has run here, for a timeline."""
        since_1970 = time.time() - time.perf_counter()
        actor_id, class_name = self.reports.actor
        spans = []
        for name, task_id, began, seconds, attempt, _ in [*self.reports.spans]:
            if task_id == actor_id:
                name, attempt = f"{class_name}.__init__", CALL
            spans.append(m.Span(name, task_id, began + since_1970, seconds, attempt == CALL))
        node_id = self._inbox.setup.node_id if self._inbox.setup is not None else NOWHERE
        found = [m.WorkerSpans(node_id, self._me.process_id, spans)]
        self._tell([m.Traced(0, self._me.process_id, target, about, found)])
