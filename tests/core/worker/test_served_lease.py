"""A worker's lease: what it takes, what it gives back, what it keeps, and when it is over."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.core.benches import UNIT, identity, somebody, spec, template
from zray import limits
from zray.core.worker.served_lease import ServedLease
from zray.core.worker.task_inbox import TaskInbox
from zray.errors import ProtocolError
from zray.ids import split_tasks
from zray.protocol import messages as m

WORK = template()
OTHER = template("other")
FUNCTION = m.Export(0, WORK.function_id, "work", b"code")
GRANT = m.Grant(0, identity("lease"), identity("job"), identity("driver"), [("CPU", UNIT)])


class Bench:
    def __init__(self, *known: m.Message, now: float = 10.0) -> None:
        self.inbox = TaskInbox(somebody(identity("w1")))
        self.lease: ServedLease[str] = ServedLease(GRANT, self.inbox, now)
        self.hear(*known)

    def hear(self, *messages: m.Message) -> None:
        for message in messages:
            self.lease.handlers[type(message)](message)

    def run(self) -> str:
        """Start the next task; its name, or nothing."""
        delivered = self.inbox.next()
        return name(delivered.assignment) if delivered is not None else ""


def name(task: m.Assignment) -> str:
    return task.spec.task_id.rstrip(b"\0").decode()


def packet(*names: str, made_of: m.Template = WORK) -> m.Tasks:
    return m.Tasks(0, [m.Assignment(1, identity("job"), spec(one, made_of)) for one in names])


def test_it_is_told_to_others_as_the_workers() -> None:
    held = Bench().lease.held()
    assert (held.lease_id, held.submitter) == (identity("lease"), identity("driver"))
    assert (held.worker_id, held.resources) == (identity("w1"), [("CPU", UNIT)])


# ---- packets ---------------------------------------------------------------------------------


def test_a_packet_of_known_tasks_is_delivered() -> None:
    bench = Bench(FUNCTION, WORK)
    assert bench.lease.takes() and bench.lease.deliver(packet("t0", "t1"))
    assert bench.run() == "t0"


def test_a_packet_without_an_argument_is_refused() -> None:
    bench = Bench(FUNCTION, WORK)
    bad = packet("t0", "t1")
    bad.tasks[1].spec.dependencies.append(identity("t9") + bytes(4))
    with pytest.raises(ProtocolError):
        bench.lease.deliver(bad)


def test_what_the_raylet_has_told_need_not_be_told_again() -> None:
    bench = Bench()
    bench.inbox.on_export(FUNCTION)
    bench.inbox.on_template(WORK)
    assert bench.lease.deliver(packet("t0"))


def test_a_packet_that_comes_before_its_template_waits_for_it() -> None:
    bench = Bench(FUNCTION)
    assert not bench.lease.deliver(packet("t0"))
    assert not bench.lease.takes() and bench.run() == ""
    bench.lease.deliver_early()
    assert not bench.lease.takes()
    bench.hear(WORK)
    bench.lease.deliver_early()
    assert bench.lease.takes() and bench.run() == "t0"


def test_a_template_without_its_function_is_of_no_use() -> None:
    bench = Bench(WORK)
    assert not bench.lease.deliver(packet("t0"))
    bench.hear(FUNCTION)
    bench.lease.deliver_early()
    assert bench.run() == "t0"


def test_what_the_raylet_has_had_forgotten_is_known_all_the_same() -> None:
    bench = Bench(FUNCTION, WORK)
    bench.lease.deliver(packet("t0"))
    bench.run()
    bench.inbox.finished(m.FINISHED, [], 0.1, [], 11.0)
    bench.inbox.on_forget(m.Forget(0, WORK.function_id))
    assert not bench.inbox.templates
    assert bench.lease.deliver(packet("t1")) and bench.run() == "t1"
    assert bench.inbox.functions and bench.inbox.templates


# ---- giving back -----------------------------------------------------------------------------


def test_all_that_has_not_started_is_given_back_in_order() -> None:
    bench = Bench(FUNCTION, WORK)
    bench.lease.deliver(packet("t0", "t1"))
    bench.lease.deliver(packet("t2", made_of=OTHER))
    bench.run()
    assert split_tasks(bench.lease.recall().task_ids) == [identity("t1"), identity("t2")]
    assert bench.lease.takes() and bench.lease.recall().task_ids == b""


def test_a_cancel_finds_what_has_not_started() -> None:
    bench = Bench(FUNCTION, WORK)
    bench.lease.deliver(packet("t0", "t1"))
    bench.lease.deliver(packet("t2", "t3", made_of=OTHER))
    bench.run()
    for one in ("t1", "t2"):
        returned = bench.lease.cancel(m.CancelTask(0, identity(one), 1, False))
        assert returned == m.Returned(0, identity(one))
    assert bench.lease.cancel(m.CancelTask(0, identity("t0"), 1, False)) is None
    assert bench.lease.cancel(m.CancelTask(0, identity("t3"), 2, False)) is None
    assert split_tasks(bench.lease.recall().task_ids) == [identity("t3")]


def test_a_task_that_takes_long_is_looked_after_while_others_are_behind_it() -> None:
    """And not otherwise: each look costs the task that runs a turn of the interpreter."""
    bench = Bench(FUNCTION, WORK)
    lease, inbox = bench.lease, bench.inbox
    lease.deliver(packet("t0", "t1", "t2"))
    for _ in range(2):
        bench.run()
        lease.begins()
        assert lease.at_stake() and not lease.takes_long()
        if inbox.current is not None and inbox.current.spec.task_id == identity("t0"):
            inbox.finished(m.FINISHED, [], 0.001, [], 10.0)
    assert lease.takes_long() and lease.takes_long()
    assert split_tasks(lease.recall().task_ids) == [identity("t2")]
    assert lease.at_stake(), "the end of the first is not told"
    assert inbox.take_done(10.1, next_is_short=False) is not None
    assert not lease.at_stake()
    lease.unsure = 1
    assert lease.at_stake()


# ---- ends ------------------------------------------------------------------------------------


def test_only_ends_that_refer_to_something_are_numbered() -> None:
    bench = Bench()
    plain, first, second = m.Done(0, []), m.Done(0, []), m.Done(0, [])
    bench.lease.number(plain)
    bench.lease.keep(["a"])
    bench.lease.keep(["b"])
    bench.lease.number(first)
    bench.lease.keep(["c"])
    bench.lease.number(second)
    assert (plain.seq, first.seq, second.seq) == (0, 1, 2)
    assert bench.lease.kept == {1: ["a", "b"], 2: ["c"]}
    bench.hear(m.Ack(0, 1))
    assert bench.lease.kept == {2: ["c"]}
    bench.lease.gone()
    assert not bench.lease.kept and bench.lease.ending


def test_it_waits_longer_for_its_submitter_than_for_tasks() -> None:
    bench = Bench(now=10.0)
    assert bench.lease.rests_s(10.0) == pytest.approx(limits.LEASE_CONNECT_S)
    bench.lease.connected(10.5)
    assert bench.lease.rests_s(10.5) == pytest.approx(limits.LEASE_IDLE_S)
    assert bench.lease.rests_s(10.5 + limits.LEASE_IDLE_S) == 0


def test_the_time_without_a_task_counts_from_the_last() -> None:
    bench = Bench(now=10.0)
    bench.lease.connected(10.0)
    bench.lease.begins()
    assert bench.lease.rests_s(20.0) == pytest.approx(limits.LEASE_IDLE_S)
    bench.lease.begins()
    assert bench.lease.rests_s(30.0) == pytest.approx(limits.LEASE_IDLE_S)
    assert bench.lease.rests_s(30.0 + limits.LEASE_IDLE_S) == 0


def test_it_does_not_end_before_its_ends_are_told() -> None:
    bench = Bench()
    bench.lease.ending = True
    bench.lease.unsure = 1
    assert bench.lease.rests_s(99.0) > 0 and not bench.lease.takes()
    bench.lease.unsure = 0
    assert bench.lease.rests_s(10.0) == 0


# ---- functions -------------------------------------------------------------------------------


def ends(bench: Bench) -> None:
    bench.inbox.end(m.FINISHED, [], 0.001, [])


def test_a_function_that_the_submitter_needs_no_more_is_unloaded() -> None:
    bench = Bench(FUNCTION, WORK)
    bench.lease.deliver(packet("t0"))
    bench.run()
    ends(bench)
    bench.hear(m.Forget(0, WORK.function_id))
    assert bench.inbox.forgotten == [WORK.function_id]
    assert not bench.inbox.functions and not bench.inbox.templates
    assert not bench.lease.deliver(packet("t1"))
    bench.hear(FUNCTION, WORK)  # it is needed after all
    bench.lease.deliver_early()
    assert bench.run() == "t1"


@pytest.mark.parametrize("first", [True, False])
def test_what_the_raylet_has_told_is_the_raylets_to_forget(first: bool) -> None:
    bench = Bench(FUNCTION, WORK)
    if first:
        bench.lease.deliver(packet("t0"))
        bench.run()
        ends(bench)
    bench.inbox.on_export(FUNCTION)
    bench.inbox.on_template(WORK)
    bench.lease.deliver(packet("t1"))
    bench.run()
    ends(bench)
    bench.hear(m.Forget(0, WORK.function_id))
    assert bench.inbox.templates and bench.inbox.functions and not bench.inbox.forgotten
    bench.inbox.on_forget(m.Forget(0, WORK.function_id))
    assert not bench.inbox.templates and not bench.inbox.functions


def test_of_the_functions_of_former_leases_the_last_ones_stay() -> None:
    bench = Bench()
    for number in range(limits.LEASE_FUNCTIONS_MAX + 3):
        made = replace(template(f"f{number}"), function_id=identity(f"f{number}"))
        bench.hear(m.Export(0, made.function_id, "f", b"code"), made)
        bench.lease.deliver(packet(f"t{number}", made_of=made))
        bench.run()
        ends(bench)
    bench.inbox.trim_lent()
    assert len(bench.inbox.functions) == limits.LEASE_FUNCTIONS_MAX
    assert len(bench.inbox.forgotten) == 3
    assert template("f3").template_id in bench.inbox.templates
