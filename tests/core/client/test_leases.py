"""Leases as a driver has them, without the client: what goes straight to workers, and what becomes
of it when these block, die, or are taken away."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from msgspec.structs import replace

from tests.core.benches import identity, template
from tests.core.client.benches import ME, Lower
from zray import limits
from zray.core import failures
from zray.core.client.far_leases import FarLeases
from zray.core.client.lease import Lease
from zray.core.client.lease_class import LeaseClasses
from zray.core.client.lease_queues import LeaseQueues
from zray.core.client.leased_tasks import LeasedTasks
from zray.core.client.leases import ClientLeases
from zray.errors import TaskCancelledError, WorkerCrashedError
from zray.protocol import failed_run
from zray.protocol import messages as m

WORK = template()
UNIT = limits.RESOURCE_UNIT
CLASS = [("CPU", UNIT)]


def object_of(name: str) -> bytes:
    return identity(name) + bytes(4)


class Bench(Lower):
    """``by_head``: tasks that went by way of the head; ``queue``: what a worker has not taken."""

    def __init__(self, *, warm: bool = True, remote: bool = True) -> None:
        super().__init__(remote=remote)
        self.by_head: list[m.TaskSpec] = []
        self.queue: dict[bytes, deque[m.Tasks]] = {}
        self.items: list[m.Items] = []  # that leased workers have told of
        classes = LeaseClasses()
        self.far = FarLeases(
            me=self.me,
            outbox=self.outbox,
            linked=lambda: True,
            said=lambda lease_id, message: self.leases.link_message(lease_id, message),
            returned=lambda *what: self.leases.returned(*what),
            ended=lambda lease_id, reached: self.leases.link_ended(lease_id, reached),
            caught_up=lambda lease_id: self.leases.caught_up(lease_id),
        )
        queues = LeaseQueues(
            me=self.me,
            outcomes=self.outcomes,
            references=self.references,
            definitions=self.definitions,
            far=self.far,
        )
        queues.take_back = self._take_back
        self.tasks = LeasedTasks(
            me=self.me,
            outbox=self.outbox,
            outcomes=self.outcomes,
            unresolved=self.unresolved,
            results=self.results,
            classes=classes,
            references=self.references,
            definitions=self.definitions,
            by_head=self._hand_over,
            taken_back=queues.taken_back,
            remote=remote,
        )
        self.leases = ClientLeases(
            me=self.me,
            outbox=self.outbox,
            classes=classes,
            tasks=self.tasks,
            queues=queues,
            far=self.far,
            references=self.references,
            requests=self.requests,
            items=self.items.append,
        )
        self.definitions.export(m.Export(0, WORK.function_id, "f", b"code"))
        self.definitions.template(WORK)
        if warm:  # the first task goes by way of the head
            assert self.submit("cold") is None
            self.turn()
        self.taken()

    def _hand_over(self, spec: m.TaskSpec, returns: list[bytes], at_once: bool) -> None:
        self.by_head.append(spec)
        self.unresolved[spec.task_id] = spec
        self.references.entrust(returns)

    def _take_back(self, worker_id: bytes) -> list[m.Tasks]:
        taken = [*self.queue.get(worker_id, ())]
        self.queue.pop(worker_id, None)
        return taken

    def submit(self, name: str, made_of: m.Template = WORK, **fields: Any) -> list[bytes] | None:
        spec = m.TaskSpec(identity(name), made_of.template_id, b"", **fields)
        return self.tasks.submit(spec, made_of.num_returns)

    def turn(self) -> None:
        """The shell does what is wanted."""
        while self.leases.unsent() or self.leases.connects or self.leases.drains:
            while self.leases.connects:
                self.leases.connected(self.leases.connects.pop(), ok=True)
            while self.leases.drains:
                self.leases.drained(self.leases.drains.pop())
            self.leases.flush()
        packets, self.leases.queues.packets = self.leases.queues.packets, []
        for worker_id, message in packets:
            self.queue.setdefault(worker_id, deque()).append(message)

    def lease(self, name: str) -> bytes:
        """The head grants one; its id."""
        lease_id = identity(f"l{name}")
        held = m.HeldLease(lease_id, ME, ME, CLASS, identity(name))
        self.leases.on_leased(m.Leased(0, held, "machine", "one"))
        self.turn()
        return lease_id

    def take(self, worker_id: bytes) -> list[str]:
        """The worker takes the next packet."""
        return names(self.queue[worker_id].popleft())

    def ends(
        self, worker_id: bytes, *tasks: str, status: int = m.FINISHED, seconds: float = 0.01
    ) -> None:
        """The worker has ended these."""
        results = [m.Outcome(object_of(name), m.VALUE, 1, b"v") for name in tasks]
        dones = [
            m.TaskDone(identity(name), 1, status, [result], seconds)
            for name, result in zip(tasks, results, strict=True)
        ]
        self.leases.link_message(worker_id, m.Done(0, dones))
        self.turn()

    def waiting(self, worker_id: bytes) -> list[str]:
        return [name for message in self.queue.get(worker_id, ()) for name in names(message)]

    def demands(self) -> list[int]:
        return [message.count for message in self.taken(m.Demand)]

    def code(self, name: str) -> str:
        outcome = self.outcomes[object_of(name)]
        assert outcome.kind == m.ERROR
        return failures.read(outcome.value).code


def names(message: m.Tasks) -> list[str]:
    return [one.spec.task_id.rstrip(b"\0").decode() for one in message.tasks]


def names_of(lease: Lease) -> list[str]:
    return [task_id.rstrip(b"\0").decode() for task_id in lease.inflight]


def measured(bench: Bench, worker_id: bytes, seconds: float) -> None:
    """The function is known to take so long."""
    bench.submit("known")
    bench.turn()
    bench.take(worker_id)
    bench.ends(worker_id, "known", seconds=seconds)
    bench.taken()


def test_the_first_task_goes_by_way_of_the_head_and_asks_for_a_lease() -> None:
    bench = Bench(warm=False)
    assert bench.submit("t1") is None
    bench.turn()
    assert [(told.count, told.expected) for told in bench.taken(m.Demand)] == [(1, True)]
    returns = bench.submit("t2")
    assert returns == [object_of("t2")]
    bench.turn()
    (told,) = bench.taken(m.Demand)
    assert (told.count, told.expected) == (1, False)  # the one that was asked for is for this
    bench.submit("t3")
    bench.turn()
    assert bench.demands() == [2]


def test_a_worker_does_not_lease() -> None:
    bench = Bench(remote=False, warm=False)
    assert bench.submit("t1") is None
    assert bench.submit("t2") is None


@pytest.mark.parametrize("resources", [[("GPU", 1)], [("CPU", 1), ("memory", 1)], [], [("CPU", 0)]])
def test_only_tasks_of_cpus_go_by_lease(resources: list[tuple[str, int]]) -> None:
    bench = Bench()
    bench.lease("w1")
    other = template("other", resources=resources)
    bench.definitions.export(m.Export(0, other.function_id, "f", b"code"))
    bench.definitions.template(other)
    assert bench.submit("t1", other) is None
    assert bench.submit("t2", other) is None


def test_large_functions_go_by_way_of_the_head() -> None:
    bench = Bench()
    bench.lease("w1")
    other = replace(template("other"), function_id=identity("large"))
    blob = bytes(limits.LEASE_FUNCTION_BYTES_MAX + 1)
    bench.definitions.export(m.Export(0, other.function_id, "f", blob))
    bench.definitions.template(other)
    assert bench.submit("t1", other) is None


def test_a_function_is_told_before_its_first_task_once() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    told = bench.leases.queues.direct.take()[worker]
    assert [type(message) for message in told] == [m.Export, m.Template]
    bench.take(worker)
    bench.ends(worker, "t1")
    bench.submit("t2")
    bench.turn()
    assert bench.waiting(worker) == ["t2"]
    assert not bench.leases.queues.direct.take()


def test_nothing_waits_behind_a_task_of_unknown_length() -> None:
    bench = Bench()
    one, two = bench.lease("w1"), bench.lease("w2")
    for name in ("t1", "t2", "t3", "t4"):
        bench.submit(name)
    bench.turn()
    assert bench.waiting(one) == ["t1"] and bench.waiting(two) == ["t2"]


@pytest.mark.parametrize(
    ("seconds", "at_once"), [(0.0021, 32), (0.01, 8), (0.05, 2), (0.2, 1), (30.0, 1)]
)
def test_some_wait_behind_a_task_that_is_over_soon(seconds: float, at_once: int) -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, seconds)
    for place in range(40):
        bench.submit(f"t{place}")
    bench.turn()
    assert len(bench.waiting(worker)) == at_once
    assert all(len(message.tasks) == 1 for message in bench.queue[worker])


def test_short_tasks_go_in_packets_up_to_some_milliseconds() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.0001)
    for place in range(1000):
        bench.submit(f"t{place}")
    bench.turn()
    assert [len(message.tasks) for message in bench.queue[worker]] == [20] * 4


def test_the_last_tasks_are_shared_out() -> None:
    bench = Bench()
    workers = [bench.lease(name) for name in ("w1", "w2", "w3", "w4")]
    measured(bench, workers[0], 0.0001)
    for place in range(8):
        bench.submit(f"t{place}")
    bench.turn()
    assert [len(bench.waiting(worker)) for worker in workers] == [2, 2, 2, 2]


def test_what_a_worker_has_not_begun_goes_to_one_that_has_nothing() -> None:
    bench = Bench()
    one, two = bench.lease("w1"), bench.lease("w2")
    measured(bench, one, 0.05)
    for name in ("t1", "t2", "t3", "t4"):
        bench.submit(name)
    bench.turn()
    assert [bench.waiting(one), bench.waiting(two)] == [["t1", "t3"], ["t2", "t4"]]
    bench.take(one)
    bench.take(two)
    bench.take(two)
    bench.ends(two, "t2", "t4", seconds=0.05)
    assert bench.waiting(two) == ["t3"] and not bench.waiting(one)
    bench.take(two)
    bench.ends(two, "t3", seconds=0.05)
    assert not bench.waiting(two)  # the other one runs t1
    bench.ends(one, "t1")
    assert all(object_of(f"t{place}") in bench.outcomes for place in range(1, 5))
    assert not len(bench.tasks)


def test_what_is_taken_back_goes_to_whoever_has_nothing() -> None:
    """Not back to a worker whose one task is reckoned to take no time, less what was rounded."""
    bench = Bench()
    first = bench.lease("w1")
    bench.submit("t1")  # it is not known how long that takes
    bench.turn()
    bench.take(first)
    other = bench.lease("w2")
    measured(bench, other, 0.0002)
    for name in ("t2", "t3", "t4"):
        bench.submit(name)
    bench.turn()
    assert bench.waiting(first)
    lease = bench.leases._leases[first]
    lease.seconds -= sum(task.seconds for task in lease.inflight.values()) + 1e-18
    bench.ends(other, *bench.waiting(other), seconds=0.0002)
    bench.queue.pop(other, None)
    assert names_of(lease) == ["t1"]


def test_a_new_lease_gets_what_waits_behind_others() -> None:
    bench = Bench()
    one = bench.lease("w1")
    measured(bench, one, 0.05)
    bench.submit("t1")
    bench.submit("t2")
    bench.turn()
    assert bench.demands() == [1]  # it could start elsewhere
    bench.take(one)
    two = bench.lease("w2")
    assert bench.waiting(two) == ["t2"] and not bench.waiting(one)


def test_ends_need_not_be_read_at_once_where_more_is_waited_for_than_workers_have() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.01)
    for place in range(40):
        bench.submit(f"t{place}")
    bench.turn()
    there = len(bench.waiting(worker))
    assert limits.LEASE_NAP_TASKS < there < 40
    assert bench.leases.nap_s(40) == limits.LEASE_NAP_S
    assert bench.leases.nap_s(there) == 0.0  # what is waited for may be among those
    bench.submit("after", dependencies=[object_of("t39")])
    assert bench.leases.nap_s(40) == limits.LEASE_BRIEF_NAP_S  # it should not wait for long
    bench.leases._leases[worker].blocked = True
    assert bench.leases.nap_s(40) == 0.0


def test_naps_are_brief_where_few_tasks_are_left_to_a_worker() -> None:
    """One that ends sooner than expected makes it idle."""
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.05)
    for place in range(40):
        bench.submit(f"t{place}")
    bench.turn()
    assert len(bench.waiting(worker)) == 2
    assert bench.leases.nap_s(40) == limits.LEASE_BRIEF_NAP_S


def test_nobody_naps_while_a_worker_has_little_to_do() -> None:
    bench = Bench()
    assert bench.leases.nap_s(40) == 0.0
    worker = bench.lease("w1")
    assert bench.leases.nap_s(40) == 0.0
    measured(bench, worker, 0.001)
    bench.submit("t1")
    bench.turn()
    assert bench.leases.nap_s(40) <= 0.0005
    bench.lease("w2")
    assert bench.leases.nap_s(40) == 0.0


def test_what_waits_behind_a_task_that_takes_too_long_can_go_elsewhere() -> None:
    bench = Bench()
    one = bench.lease("w1")
    measured(bench, one, 0.0001)
    bench.submit("t1")
    bench.turn()
    bench.submit("t2")
    bench.turn()
    bench.take(one)
    assert bench.leases.look_in() < limits.LEASE_LATE_S + 0.02 and bench.demands() == []
    bench.leases.look(1.0)
    bench.leases.look(1.004)
    bench.turn()
    assert bench.waiting(one) == ["t2"]
    bench.leases.look(1.006)
    bench.turn()
    assert not bench.waiting(one) and bench.demands() == [1]
    bench.submit("t3")
    bench.turn()
    assert not bench.waiting(one)  # while it is late it gets nothing
    bench.ends(one, "t1", seconds=5.0)
    assert bench.waiting(one) == ["t2"]


def test_a_new_lease_is_not_late_before_it_was_looked_at() -> None:
    bench = Bench()
    one = bench.lease("w1")
    measured(bench, one, 0.01)
    two = bench.lease("w2")
    for number in range(4):
        bench.submit(f"t{number}")
    bench.turn()
    bench.leases.look(1000.0)
    bench.turn()
    assert len(bench.waiting(one)) == len(bench.waiting(two)) == 2


def test_results_are_the_processs_own_until_somebody_hears_of_them() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    waiter = bench.waits(object_of("t1"))
    bench.take(worker)
    bench.ends(worker, "t1")
    assert not waiter.remaining
    assert object_of("t1") in bench.references.own
    assert not bench.told(m.Hold)
    bench.references.remove(object_of("t1"))
    assert not bench.told(m.Drop)


def test_what_a_task_has_printed_comes_before_its_result() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    result = m.Outcome(object_of("t1"), m.VALUE, 1, b"v")
    done = m.TaskDone(identity("t1"), 1, m.FINISHED, [result], 0.01, printed=True)
    bench.leases.link_message(worker, m.Done(0, [done]))
    bench.turn()
    assert object_of("t1") not in bench.outcomes
    (sync,) = bench.taken(m.Sync)
    asked = bench.requests.take(sync.seq)
    assert asked is not None
    asked.waiter.arrived()
    assert bench.outcomes[object_of("t1")].value == b"v"


def test_what_a_result_refers_to_is_held_before_its_worker_lets_go_of_it_also_after_prints() -> (
    None
):
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    bench.leases.queues.direct.take()
    inner = object_of("inner")
    result = m.Outcome(object_of("t1"), m.VALUE, 1, b"v", [inner])
    done = m.TaskDone(identity("t1"), 1, m.FINISHED, [result], 0.01, printed=True)
    bench.references.add(object_of("t1"))
    bench.leases.link_message(worker, m.Done(7, [done]))
    bench.turn()
    told = bench.taken()
    assert [message.seq for message in told if isinstance(message, m.Sync)] and not any(
        isinstance(message, m.Hold) for message in told
    )
    for message in told:
        if isinstance(message, m.Sync):
            bench.requests.take(message.seq).waiter.arrived()
    bench.turn()
    assert not bench.leases.queues.direct.take()  # it keeps that until the head knows
    kinds = [message for message in bench.taken() if isinstance(message, (m.Hold, m.Sync))]
    assert [type(message) for message in kinds] == [m.Hold, m.Sync]
    bench.requests.take(kinds[1].seq).waiter.arrived()
    assert bench.leases.queues.direct.take()[worker] == [m.Ack(0, 7)]


def test_a_result_that_others_have_heard_of_is_put_when_it_comes() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.references.publish([object_of("t1")])
    assert [msg.object_ids for msg in bench.taken(m.Promise)] == [object_of("t1")]
    bench.take(worker)
    bench.ends(worker, "t1")
    assert [msg.outcome.object_id for msg in bench.taken(m.Put)] == [object_of("t1")]


def test_a_task_waits_here_for_results_of_others() -> None:
    bench = Bench()
    one = bench.lease("w1")
    bench.submit("t1")
    bench.submit("t2", dependencies=[object_of("t1")])
    bench.turn()
    assert bench.waiting(one) == ["t1"]
    bench.take(one)
    bench.ends(one, "t1")
    (message,) = bench.queue[one]
    assert names(message) == ["t2"]
    assert [value.value for value in message.values] == [b"v"]


def test_a_task_whose_argument_failed_has_the_same_error() -> None:
    bench = Bench()
    one = bench.lease("w1")
    bench.submit("t1")
    bench.submit("t2", dependencies=[object_of("t1")])
    bench.turn()
    bench.take(one)
    error = m.Outcome(object_of("t1"), m.ERROR, 3, b"bad")
    done = m.TaskDone(identity("t1"), 1, m.FINISHED, [error], 0.01)
    bench.leases.link_message(one, m.Done(0, [done]))
    bench.turn()
    assert bench.outcomes[object_of("t2")].value == b"bad"
    assert not bench.waiting(one) and not len(bench.tasks)


@pytest.mark.parametrize(
    "outcome",
    [
        m.Outcome(object_of("a"), m.VALUE | m.LOCATED, 1 << 20),
        m.Outcome(object_of("a"), m.VALUE, limits.LEASE_TASK_BYTES_MAX + 1, bytes(65537)),
        m.Outcome(object_of("a"), m.VALUE, 1, b"v", [object_of("b")]),
    ],
)
def test_large_arguments_and_those_with_references_go_by_way_of_the_head(
    outcome: m.Outcome,
) -> None:
    bench = Bench()
    bench.lease("w1")
    bench.outcomes[outcome.object_id] = outcome
    assert bench.submit("t1", dependencies=[outcome.object_id]) is None


def test_a_function_of_large_results_goes_by_way_of_the_head_from_then_on() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    large = m.Outcome(object_of("t1"), m.VALUE | m.LOCATED, 1 << 20)
    done = m.TaskDone(identity("t1"), 1, m.FINISHED, [large], 0.01)
    bench.leases.link_message(worker, m.Done(7, [done]))
    assert bench.submit("t2") is None
    # The worker keeps it until the cluster knows that this process holds it.
    messages = bench.taken()
    assert [type(message) for message in messages] == [m.Hold, m.Made, m.Sync]
    assert [spec.task_id for spec in messages[1].tasks] == [identity("t1")]
    assert not bench.leases.queues.direct.take().get(worker, [])[2:]
    asked = bench.requests.take(messages[2].seq)
    assert asked is not None
    asked.waiter.arrived()
    assert bench.leases.queues.direct.take()[worker] == [m.Ack(0, 7)]


def test_how_a_large_result_was_made_is_not_told_where_nobody_wants_it() -> None:
    """The head would keep that until the job ends: it never hears that the result is dropped."""
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    bench.references.remove(object_of("t1"))
    large = m.Outcome(object_of("t1"), m.VALUE | m.LOCATED, 1 << 20)
    done = m.TaskDone(identity("t1"), 1, m.FINISHED, [large], 0.01)
    bench.leases.link_message(worker, m.Done(7, [done]))
    assert not bench.taken(m.Made)
    assert bench.submit("t2") is None, "it is known to have large results"


def test_of_a_generator_with_large_items_the_head_hears_as_it_runs_and_at_its_end() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    bench.leases.tasks.yielded_large(identity("t1"))
    bench.leases.tasks.yielded_large(identity("t1"))
    bench.leases.tasks.yielded_large(identity("other"))
    bench.leases.resume()
    end = m.Outcome(object_of("t1"), m.VALUE, 1, b"-")
    done = m.TaskDone(identity("t1"), 1, m.FINISHED, [end], 0.01)
    bench.leases.link_message(worker, m.Done(7, [done]))
    made = bench.taken(m.Made)
    told = [([spec.task_id for spec in one.tasks], one.runs, one.running) for one in made]
    assert told == [
        ([identity("t1")], True, b""),
        ([identity("t1")], True, b""),  # to a new session, which hears of no others
        ([], True, identity("t1")),
        ([identity("t1")], False, b""),
    ]
    bench.leases.resume()
    bench.leases.resume()
    assert [(one.tasks, one.running) for one in bench.taken(m.Made)] == [([], b"")]
    assert bench.submit("t2") is not None  # its items are told of as they come


def test_a_worker_may_be_leased_anew_before_it_is_known_that_its_last_lease_has_ended() -> None:
    """A driver that computes reads both at once; what is left of the old one does not touch the
    new one."""
    bench = Bench()
    old = bench.lease("w1")
    measured(bench, old, 0.05)
    bench.submit("t1")
    bench.turn()
    bench.take(old)
    inner = m.Outcome(object_of("t1"), 0, 5, b"value", [object_of("inner")])
    result = m.TaskDone(identity("t1"), 1, m.FINISHED, [inner], 0.01)
    bench.leases.link_message(old, m.Done(7, [result]))
    (asked,) = bench.taken(m.Sync)
    new = identity("again")
    bench.leases.on_lease_ended(m.LeaseEnded(0, old))
    held = m.HeldLease(new, ME, ME, CLASS, identity("w1"))
    bench.leases.on_leased(m.Leased(0, held, "machine", "one"))
    assert not bench.taken(m.Revoke)
    bench.submit("t2")
    bench.turn()
    assert bench.take(new) == ["t2"] and not bench.leases.closes
    settled = bench.requests.take(asked.seq)
    assert settled is not None
    bench.leases.queues.direct.take()
    settled.waiter.arrived()
    assert bench.leases.queues.direct.take() == {old: [m.Ack(0, 7)]}
    assert bench.leases.closes == [old]
    bench.ends(new, "t2")
    assert not bench.tasks


def test_a_worker_is_told_which_functions_it_need_not_keep() -> None:
    bench = Bench()
    bench.definitions.name(WORK.function_id)
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    bench.leases.queues.direct.take()
    bench.definitions.unname(WORK.function_id)
    bench.turn()
    assert not bench.leases.queues.direct  # a task of it runs
    bench.ends(worker, "t1")
    bench.turn()
    assert bench.leases.queues.direct.take() == {worker: [m.Forget(0, WORK.function_id)]}
    bench.definitions.export(m.Export(0, WORK.function_id, "f", b"code"))
    bench.definitions.template(WORK)
    bench.submit("t2")
    bench.turn()
    sent = bench.leases.queues.direct.take()[worker]
    assert [type(message) for message in sent] == [m.Export, m.Template]
    assert bench.take(worker) == ["t2"]


def test_a_covered_exception_is_tried_again_as_often_as_allowed() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    for attempt in range(1, WORK.max_retries + 2):
        (message,) = bench.queue.pop(worker)
        assert (message.tasks[0].attempt, message.tasks[0].failures) == (attempt, attempt - 1)
        error = m.Outcome(object_of("t1"), m.ERROR, 3, b"bad")
        done = m.TaskDone(identity("t1"), attempt, m.FAILED, [error], 0.01)
        bench.leases.link_message(worker, m.Done(0, [done]))
        bench.turn()
    assert worker not in bench.queue
    assert bench.outcomes[object_of("t1")].value == b"bad"


def test_a_dead_worker_fails_what_it_had_begun_alone() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.0001)
    once = template("once", retries=0)
    bench.definitions.export(m.Export(0, once.function_id, "f", b"code"))
    bench.definitions.template(once)
    for place in range(12):
        bench.submit(f"t{place}", once)
    bench.turn()
    assert bench.take(worker) == ["t0"]
    bench.ends(worker, "t0", seconds=0.0001)
    bench.turn()
    first = bench.take(worker)
    assert len(first) > 2
    bench.leases.link_lost(worker)
    bench.turn()
    assert len(bench.tasks) == 11  # nobody knows yet how it died
    # It had begun three: "known", t0 and the first of the packet that it took.
    ended = m.LeaseEnded(0, identity("lw1"), 3, "(pid 7, node one)\nexit code 1; last words")
    bench.leases.on_lease_ended(ended)
    bench.turn()
    assert bench.code(first[0]) == WorkerCrashedError.code
    text = failures.read(bench.outcomes[object_of(first[0])].value).message
    assert text.startswith("the worker (pid 7, node one) that ran once died: exit code 1; last")
    assert len(bench.tasks) == 10
    two = bench.lease("w2")
    assert bench.waiting(two)[0] == first[1]
    assert bench.leases.closes == [worker]
    # Its worker cannot tell of it any more: a node is to keep it, to be run again.
    (kept,) = bench.taken(m.KeepRun)
    run = failed_run.decode(kept.data)
    assert (kept.run.task_id, kept.run.name, kept.function) == (identity(first[0]), "once", b"code")
    assert run.spec.task_id == identity(first[0]) and run.node == "one"
    assert failures.read(run.error).message == text


def test_a_lease_that_ends_in_peace_gives_back_what_was_not_begun() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.05)
    bench.submit("t1")
    bench.submit("t2")
    bench.turn()
    bench.take(worker)
    bench.ends(worker, "t1", seconds=0.05)
    bench.leases.link_message(worker, m.LeaseEnded(0, identity("lw1"), 0, ""))
    bench.turn()
    assert bench.leases.closes == [worker]
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("lw1"), 0, ""))  # so says the head, later
    bench.turn()
    two = bench.lease("w2")
    assert bench.waiting(two) == ["t2"]
    (message,) = bench.queue[two]
    assert message.tasks[0].failures == 0


def test_what_the_head_says_of_an_end_waits_for_the_answers_before_it() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("lw1"), 1, "(pid 7, node one)\ndied"))
    (lease,) = bench.leases.drains
    assert isinstance(lease, Lease)
    result = m.Outcome(object_of("t1"), m.VALUE, 1, b"v")
    done = m.TaskDone(identity("t1"), 1, m.FINISHED, [result], 0.01)
    bench.leases.link_message(worker, m.Done(0, [done]))
    bench.turn()
    assert bench.outcomes[object_of("t1")].value == b"v"


def test_a_worker_that_blocks_has_nothing_behind_it_and_gets_nothing() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.05)
    for name in ("t1", "t2", "t3"):
        bench.submit(name)
    bench.turn()
    bench.take(worker)
    bench.leases.link_message(worker, m.Returned(0, b""))
    bench.turn()
    assert not bench.waiting(worker)
    assert max(bench.demands()) == 2
    bench.ends(worker, "t1", seconds=0.05)
    assert bench.waiting(worker) == ["t2", "t3"]


def test_when_others_wait_all_goes_by_way_of_the_head() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.2)
    for name in ("t1", "t2", "t3"):
        bench.submit(name)
    bench.turn()
    bench.take(worker)
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, False))
    bench.turn()
    assert [spec.task_id for spec in bench.by_head] == [identity("t2"), identity("t3")]
    assert bench.demands()[-1] == 0
    assert object_of("t2") in bench.references.held
    assert bench.submit("t4") is None
    bench.ends(worker, "t1", seconds=0.2)
    assert object_of("t1") in bench.outcomes
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, True))
    assert bench.submit("t5") is not None  # it still has its lease


def test_many_tasks_go_the_heads_way_one_part_after_the_other() -> None:
    bench, count = Bench(), 2 * limits.LEASE_HAND_OVER_TASKS + 1
    for number in range(count):
        bench.submit(f"t{number}")
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, False))
    found = []
    while bench.leases.unsent() and len(found) < 10:
        before = len(bench.by_head)
        bench.leases.flush()
        found.append(len(bench.by_head) - before)
    assert found[:3] == [limits.LEASE_HAND_OVER_TASKS] * 2 + [1]
    assert [spec.task_id for spec in bench.by_head] == [identity(f"t{n}") for n in range(count)]
    bench.leases.flush()
    assert not bench.leases.unsent()


def test_few_tasks_go_the_heads_way_while_that_may_be_over_soon() -> None:
    bench = Bench()
    for number in range(3):
        bench.submit(f"t{number}")
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, False, 2))
    bench.submit("t3")
    bench.turn()

    def by_head() -> list[str]:
        return [spec.task_id.rstrip(b"\0").decode() for spec in bench.by_head]

    assert by_head() == ["t0", "t1"]
    assert bench.tasks.like(object_of("t3")) == object_of("t0")  # it waits for the same
    bench.unresolved.clear()
    bench.leases.heard_of_head()
    bench.turn()
    assert by_head() == ["t0", "t1", "t2", "t3"]
    bench.submit("t4")
    bench.submit("t5")
    bench.submit("t6")
    bench.turn()
    assert by_head()[4:] == [] and bench.tasks.like(object_of("t5")) == object_of("t2")
    assert bench.tasks.cancel(identity("t4"), force=False, recursive=False)
    assert bench.code("t4") == TaskCancelledError.code
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, True))
    worker = bench.lease("w1")
    assert bench.waiting(worker) == ["t5"]
    assert bench.tasks.like(object_of("t6")) == b""
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, False, 2))
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, False))  # nor is it over soon
    bench.turn()
    assert by_head()[4:] == ["t6"]


def test_what_does_not_go_the_heads_way_first_is_in_nobodys_way() -> None:
    """A task whose argument came, or which is tried again, goes: others may wait for it."""
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.2)
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    bench.submit("t2", dependencies=[object_of("t1")])
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, False, 1))
    for name in ("t3", "t4"):
        bench.submit(name)
    bench.turn()
    assert [spec.task_id for spec in bench.by_head] == [identity("t3")]
    bench.ends(worker, "t1", seconds=0.2)
    assert [spec.task_id for spec in bench.by_head] == [identity("t3"), identity("t2")]


def test_failures_are_known_to_the_head_when_a_task_goes_its_way() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, False))
    bench.leases.link_lost(worker)
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("lw1"), 1, "(pid 7, node one)\ndied"))
    bench.turn()
    assert [(spec.task_id, spec.failures) for spec in bench.by_head] == [(identity("t1"), 1)]


def test_a_result_that_nobody_wants_any_more_is_dropped_when_its_task_is_submitted() -> None:
    bench = Bench()
    bench.submit("t1")
    bench.references.remove(object_of("t1"))
    bench.leases.on_leasing(m.Leasing(0, ME, CLASS, False))
    bench.leases.flush()
    assert bench.told(m.Drop) == [object_of("t1")]


def test_a_worker_that_cannot_be_reached_is_refused() -> None:
    bench = Bench()
    bench.submit("t1")
    held = m.HeldLease(identity("lw1"), ME, ME, CLASS, identity("w1"))
    bench.leases.on_leased(m.Leased(0, held, "machine", "one"))
    bench.leases.connected(bench.leases.connects.pop(), ok=False)
    bench.turn()
    assert [msg.lease_id for msg in bench.taken(m.Revoke)] == [identity("lw1")]
    assert [spec.task_id for spec in bench.by_head] == [identity("t1")]
    assert bench.submit("t2") is None


def test_a_cancel_finds_a_task_wherever_it_is() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.05)
    for name in ("t1", "t2", "t3", "t4"):
        bench.submit(name)
    bench.turn()
    bench.take(worker)
    for name in ("t4", "t2"):  # one waits here, one in the queue
        assert bench.tasks.cancel(identity(name), force=False, recursive=False)
        bench.turn()
        assert bench.code(name) == TaskCancelledError.code
        assert not bench.taken(m.CancelLeased)
    assert bench.waiting(worker) == ["t3"]
    assert bench.tasks.cancel(identity("t1"), force=True, recursive=True)
    told = [message for message in bench.taken() if not isinstance(message, m.Demand)]
    assert told == [
        m.Cancel(0, identity("t1"), True, True),  # for those that it has submitted
        m.CancelLeased(0, identity("lw1"), identity("t1"), 1, True, True),
    ]
    bench.leases.link_lost(worker)
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("lw1"), 2, "(pid 7, node one)\nkilled"))
    bench.turn()
    assert bench.code("t1") == TaskCancelledError.code
    assert not bench.tasks.cancel(identity("t1"), force=True, recursive=False)


def test_a_cancelled_task_that_ends_well_has_its_value() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.turn()
    bench.take(worker)
    bench.tasks.cancel(identity("t1"), force=False, recursive=False)
    bench.ends(worker, "t1")
    assert bench.outcomes[object_of("t1")].value == b"v"


def refused(bench: Bench, worker: bytes, name: str) -> None:
    """A task whose packet does not go into the queue."""
    bench.submit(name)
    bench.leases.flush()
    ((_, message),) = bench.leases.queues.packets
    bench.leases.queues.packets.clear()
    bench.leases.refused(worker, message)
    bench.turn()


def test_a_full_queue_keeps_tasks_here_until_the_worker_has_ended_some() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    measured(bench, worker, 0.05)
    bench.submit("t1")
    bench.turn()
    assert bench.take(worker) == ["t1"]
    refused(bench, worker, "t2")
    assert not bench.waiting(worker)
    two = bench.lease("w2")
    assert bench.waiting(two) == ["t2"]


def test_what_does_not_go_into_an_empty_queue_goes_by_way_of_the_head() -> None:
    """It would not go into the next one, either."""
    bench = Bench()
    worker = bench.lease("w1")
    refused(bench, worker, "t1")
    assert [spec.task_id for spec in bench.by_head] == [identity("t1")]
    assert not len(bench.tasks)
    bench.submit("t2")
    bench.turn()
    assert bench.take(worker) == ["t2"]


def test_a_new_session_hears_what_is_wanted_and_what_there_is() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    bench.submit("t1")
    bench.submit("t2")
    bench.turn()
    bench.take(worker)
    bench.tasks.cancel(identity("t1"), force=False, recursive=False)
    bench.taken()
    bench.leases.resume()
    demand, cancel = bench.taken()
    assert (demand.count, demand.lease_ids) == (1, identity("lw1"))
    assert cancel == m.CancelLeased(0, identity("lw1"), identity("t1"), 1, False)


def test_what_has_ended_is_told_in_all() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    for place in range(3):
        bench.submit(f"t{place}")
        bench.turn()
        bench.take(worker)
        bench.ends(worker, f"t{place}")
    bench.taken()
    bench.leases.account()
    assert [message.finished for message in bench.taken(m.Demand)] == [3]
    bench.leases.account()
    assert not bench.taken(m.Demand)


def test_what_has_not_ended_is_told_now_and_then() -> None:
    bench = Bench()
    worker = bench.lease("w1")
    for name in ("t1", "t2"):
        bench.submit(name)
    bench.submit("t3", dependencies=[object_of("t1")])
    bench.turn()
    bench.leases.account()
    assert bench.taken(m.Demand)[-1].unfinished == 3
    bench.leases.account()
    assert not bench.taken(m.Demand)
    bench.take(worker)
    for name in ("t1", "t2"):
        bench.tasks.cancel(identity(name), force=False, recursive=False)
    bench.ends(worker, "t1")
    bench.turn()
    bench.leases.account()
    assert bench.taken(m.Demand)[-1].unfinished == len(bench.tasks)


def test_it_is_said_where_a_task_is() -> None:
    bench = Bench()
    bench.submit("t0")
    assert bench.tasks.reason(object_of("t0")).startswith("WAIT_RESOURCES: ")
    worker = bench.lease("w1")
    bench.take(worker)
    bench.ends(worker, "t0", seconds=0.05)
    for name in ("t1", "t2"):
        bench.submit(name)
    bench.submit("t3", dependencies=[object_of("t1")])
    bench.turn()
    reasons = [bench.tasks.reason(object_of(f"t{place}")) for place in range(4)]
    assert [reason.partition(":")[0] for reason in reasons] == [
        "",
        "LEASED",
        "LEASED",
        "WAIT_DEPS",
    ]


def test_what_a_leased_task_yields_is_passed_on() -> None:
    bench = Bench()
    lease = bench.lease("w1")
    items = m.Items(0, identity("w1"), ME, identity("t1"), [])
    bench.leases.link_message(lease, items)
    assert bench.items == [items]


# ---- priorities and timeouts -----------------------------------------------------------------

URGENT = replace(WORK, template_id=identity("urgent"), priority=3)


def test_where_tasks_have_priorities_all_of_their_class_go_by_way_of_the_head() -> None:
    bench = Bench()
    bench.definitions.template(URGENT)
    worker = bench.lease("w1")
    measured(bench, worker, 0.01)
    for name in ("t1", "t2", "t3", "t4"):
        bench.submit(name)
    bench.turn()
    assert bench.take(worker) == ["t1"] and bench.waiting(worker)
    assert bench.submit("urgent", URGENT) is None
    bench.turn()
    assert bench.waiting(worker) == []
    handed = [spec.task_id.rstrip(b"\0").decode() for spec in bench.by_head]
    assert handed == ["t2", "t3", "t4"]
    for open in (True, False):  # whatever the head says
        bench.leases.on_leasing(m.Leasing(0, ME, CLASS, open, 5))
        assert bench.submit("t5") is None
    bench.leases.resume()
    assert bench.submit("t6") is None and bench.submit("t7", URGENT) is None


def test_a_task_that_ran_too_long_is_not_retried_unless_that_is_covered() -> None:
    for status in (m.FINISHED, m.FAILED):
        bench = Bench()
        worker = bench.lease("w1")
        for name in ("t1", "t2"):
            bench.submit(name)
        bench.turn()
        assert bench.take(worker) == ["t1"]
        ended = m.LeaseEnded(0, worker, 1, "(pid 7, node n1)\nsignal 9", status=status)
        bench.leases.on_lease_ended(ended)
        bench.turn()
        if status == m.FINISHED:
            assert bench.code("t1") == "ZR-3009"
            said = failures.read(bench.outcomes[object_of("t1")].value)
            assert "its worker (pid 7, node n1) was killed" in said.message and said.node == "n1"
        else:
            assert object_of("t1") not in bench.outcomes
        assert object_of("t2") not in bench.outcomes  # it waits again
