"""When a worker tells of what runs in it, though that has not begun when it is first looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.core.benches import identity, spec, template
from zray.core.identity import Identity
from zray.ids import IdSource
from zray.nodes.worker.task_teller import TaskTeller
from zray.protocol import messages as m

WORK = template()
TASK = spec("t1", WORK)


class Bench:
    """A worker that has a task; ``since``: when its user code began, if it has."""

    def __init__(self) -> None:
        made = m.Assignment(1, identity("job"), TASK)
        setup = SimpleNamespace(node_id=identity("n1"), job_id=identity("job"))
        inbox: Any = SimpleNamespace(setup=setup, current=made, templates={WORK.template_id: WORK})
        me = Identity(identity("w"), identity("job"), IdSource(b"workerid"))
        self.told: list[Any] = []
        self.reminded: list[float] = []
        self.since: float | None = None
        self.teller = TaskTeller(*(me, inbox, self.told.extend, self.reminded.append, None))
        self.teller.reports.shows(WORK)
        self.teller.runs_since = lambda task_id: self.since

    def report(self) -> list[m.ListedTask]:
        self.told.clear()
        self.reminded.clear()
        self.teller.report()
        (report,) = self.told
        return report.running  # type: ignore[no-any-return]


def test_a_task_whose_function_takes_long_to_load_is_told_of_once_it_runs() -> None:
    bench = Bench()
    assert bench.report() == [] and bench.reminded  # it loads: somebody is to look again
    bench.since = 0.0
    (row,) = bench.report()
    assert (row.task_id, row.state) == (TASK.task_id, m.RUNNING)
    assert not bench.reminded
