"""A node's scheduler alone: what starts next, on which worker, and what that takes."""

from __future__ import annotations

from typing import Any

from tests.core.benches import UNIT, identity, spec, template
from zray import limits
from zray.core.machine import NEVER
from zray.core.raylet.local_records import LocalTask, LocalTemplate, PoolKey, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.worker_bound import OTHERS
from zray.protocol import messages as m

JOB = identity("job")
OTHER = identity("other")
KEY: PoolKey = (JOB, (), 1, "")


class Bench:
    """A scheduler, whose workers begin as soon as they are asked for."""

    def __init__(self, cpus: int = 1, max_workers: int | None = None, gpus: int = 0) -> None:
        total = {"CPU": cpus * UNIT, "GPU": gpus * UNIT, "disk": UNIT}
        self.scheduler = LocalScheduler(total, gpus, max_workers)
        self.templates: dict[str, LocalTemplate] = {}
        self.slots: dict[str, WorkerSlot] = {}

    def push(
        self,
        name: str,
        depth: int = 0,
        actor: bool = False,
        held: m.Amounts | None = None,
        job: bytes = JOB,
        **needs: float,
    ) -> LocalTask:
        made_of = template(resources=[*(needs or {"CPU": 1}).items()])
        known = self.templates.setdefault(str(needs), LocalTemplate(made_of))
        info = m.ActorInfo("Actor", bytes(16), [], held=held or []) if actor else None
        assignment = m.Assignment(1, job, spec(name, made_of), actor=info, depth=depth)
        task = LocalTask(assignment, known)
        self.scheduler.push(task)
        return task

    def place(self, now: float = 0.0, *, may_fork: bool = True) -> list[list[str]]:
        """The names of the tasks that each worker was given."""
        given = []
        for key, chosen, tasks in self.scheduler.place(now, may_fork=may_fork):
            slot = chosen or WorkerSlot(identity(f"w{len(self.scheduler.workers)}"), key)
            if chosen is None:
                self.scheduler.add_worker(slot)
            self.scheduler.give(slot, tasks, now)
            names = [task.task_id.rstrip(b"\0").decode() for task in tasks]
            self.slots.update(dict.fromkeys(names, slot))
            given.append(names)
        return given

    def end(self, name: str, now: float = 0.0) -> None:
        self.scheduler.ended(self.slots[name], identity(name), now)

    def free(self, name: str) -> Any:
        return self.scheduler.free[name] / UNIT


def test_what_a_worker_has_is_free_with_its_last_task() -> None:
    bench = Bench(cpus=2)
    for name in ("a", "b", "c"):
        bench.push(name)
    assert bench.place() == [["a"], ["b"]] and bench.free("CPU") == 0
    bench.end("a")
    assert bench.place(may_fork=False) == [["c"]], "a's worker, which is warm"
    assert bench.slots["c"] is bench.slots["a"]
    bench.end("b")
    bench.end("c")
    assert bench.free("CPU") == 2


def test_without_a_fork_only_idle_workers_start_something() -> None:
    bench = Bench(cpus=2)
    bench.push("a")
    assert bench.place(may_fork=False) == []
    assert bench.place() == [["a"]]


def test_the_deepest_start_first_and_returned_ones_before_their_equals() -> None:
    bench = Bench()
    bench.push("shallow")
    bench.push("deep", depth=2)
    again = bench.push("again")
    assert bench.scheduler.remove(again) and not bench.scheduler.remove(again)
    bench.scheduler.push(again, front=True)
    order = []
    while placed := bench.place():
        order += placed
        bench.end(placed[0][0])
    assert order == [["deep"], ["again"], ["shallow"]]


def test_a_blocked_worker_lends_its_cpu_alone_and_nothing_starts_until_it_is_paid_back() -> None:
    bench = Bench(max_workers=9)
    bench.push("waits", CPU=1, disk=1)
    bench.push("child")
    bench.push("next")
    bench.place()
    bench.scheduler.block(bench.slots["waits"])
    assert bench.place() == [["child"]]
    assert (bench.free("CPU"), bench.free("disk")) == (0, 0)
    assert bench.scheduler.released == {"CPU": UNIT}
    bench.scheduler.unblock(bench.slots["waits"])
    assert bench.free("CPU") == -1
    bench.end("child")
    assert bench.place() == []
    bench.end("waits")
    assert bench.place() == [["next"]]


def test_past_the_bound_only_what_the_blocked_may_wait_for_starts() -> None:
    bench = Bench(max_workers=1)
    bench.push("waits", depth=1)
    bench.place()
    bench.scheduler.block(bench.slots["waits"])
    beside = bench.push("beside", depth=1)
    assert bench.place() == [] and bench.scheduler.bound.floors(JOB) == (1, 1)
    assert bench.scheduler.held_back() == [beside], "it would be in a deeper one's way"
    bench.push("below", depth=2)
    assert bench.place() == [["below"]]


def test_another_job_need_not_wait_for_what_the_blocked_of_one_wait_for() -> None:
    bench = Bench(max_workers=2)
    for number in range(2):
        bench.push(f"waits{number}", depth=number)
        bench.place()
        bench.scheduler.block(bench.slots[f"waits{number}"])
    kept = bench.push("kept", depth=1)
    for number in range(2):
        bench.push(f"other{number}", job=OTHER)
    assert bench.scheduler.held_back() == [kept]
    bench.push("deep", depth=2)
    assert bench.place() == [["other0"]]
    bench.scheduler.block(bench.slots["other0"])
    assert bench.place() == [["deep"]]
    bench.end("deep")
    assert bench.place() == [], "the other one has its half, and waits for none of these"
    bench.push("child", depth=1, job=OTHER)
    assert bench.place() == [["child"]]


def test_of_many_jobs_some_begin_past_the_bound_and_others_when_nothing_moves() -> None:
    bench = Bench(max_workers=6)
    for number in range(6):
        job = identity(f"job{number}")
        for place in range(6):
            bench.push(f"{number}.{place}", job=job)
            bench.place()
            if slot := bench.slots.get(f"{number}.{place}"):
                bench.scheduler.block(slot)
    begun = [name for name in bench.slots if name.endswith(".0")]
    assert begun == ["0.0", "1.0", "2.0"]
    bound = bench.scheduler.bound
    told = dict(bound.bounded())
    assert told.pop(OTHERS) == (0, 0)
    assert [*told] == [identity(f"job{number}") for number in range(3)]
    assert len(bench.scheduler.held_back()) == 36 - len(bench.slots)
    bench.push("late", job=identity("late"))
    due = bound.lift_deadline()
    assert due == limits.STALL_S and bench.place(due) == []
    bound.lift(due)
    assert bench.place(due) == [["late"]]
    bench.push("later", job=identity("later"))
    assert bench.place(due) == []


def test_jobs_have_their_turns_and_of_one_the_deepest_goes_first() -> None:
    bench = Bench()
    for name, depth, job in (("a0", 9, JOB), ("a1", 8, JOB), ("b0", 0, OTHER), ("b1", 1, OTHER)):
        bench.push(name, depth, job=job)
    order = []
    while placed := bench.place():
        order += placed[0]
        bench.end(placed[0][0])
    assert order == ["a0", "b1", "a1", "b0"]


def test_what_may_not_start_is_in_no_other_jobs_way() -> None:
    """It may be a near task, which is not given back."""
    bench = Bench(max_workers=1)
    bench.push("waits", depth=1)
    bench.place()
    bench.scheduler.block(bench.slots["waits"])
    bench.push("kept", depth=1)
    bench.push("other", job=OTHER)
    assert bench.place() == [["other"]]


def test_one_more_starts_past_the_bound_when_nothing_has_moved_for_long() -> None:
    bench = Bench(max_workers=1)
    bench.push("waits", depth=1)
    bench.place(10.0)
    bench.scheduler.block(bench.slots["waits"])
    bench.push("beside")
    bound = bench.scheduler.bound
    due = bound.lift_deadline()
    assert due == 10.0 + limits.STALL_S
    bound.lift(due - 0.01)
    assert bench.place(due) == []
    bound.lift(due)
    assert bench.place(due) == [["beside"]]
    assert bound.lift_deadline() == due + limits.STALL_S


def test_one_more_starts_though_another_job_moves() -> None:
    bench = Bench(cpus=3, max_workers=2)
    bench.push("waits")
    bench.push("goes on", job=OTHER)
    bench.push("other0", job=OTHER)
    bench.place(10.0)
    bench.scheduler.block(bench.slots["waits"])
    bench.push("beside")
    due = 10.0 + limits.STALL_S
    for number in range(1, 5):
        bench.end(f"other{number - 1}", due - 0.01)
        bench.push(f"other{number}", job=OTHER)
        bench.scheduler.bound.lift(due - 0.01)
        assert bench.place(due - 0.01) == [[f"other{number}"]]
    assert bench.scheduler.bound.lift_deadline() == due
    bench.scheduler.bound.lift(due)
    assert bench.place(due) == [["beside"]]


def test_of_tasks_known_to_be_short_a_worker_gets_its_share_of_what_waits() -> None:
    bench = Bench(cpus=2)
    for number in range(8):
        bench.push(f"t{number}")
    assert bench.place() == [["t0"], ["t1"]], "nothing is known of it"
    bench.templates["{}"].measured(0.00001)
    for number in (0, 1):
        bench.end(f"t{number}")
    first, second = bench.place()
    assert first == ["t2", "t3", "t4"]
    assert second[0] == "t5"


def test_what_is_kept_from_starting_by_a_long_one_is_recalled_once() -> None:
    bench = Bench()
    bench.push("a").template.measured(0.00001)
    bench.push("b")
    assert bench.place(1.0) == [["a", "b"]]
    assert bench.scheduler.overrun_deadline() == 1.0 + limits.RECALL_S
    assert not bench.scheduler.overrun(1.0)
    (slot,) = bench.scheduler.overrun(1.0 + limits.RECALL_S)
    slot.recalled = True
    assert not bench.scheduler.overrun(9.0) and bench.scheduler.overrun_deadline() == NEVER


def test_an_actor_comes_before_the_deepest_tasks_unless_it_takes_a_cpu_from_them() -> None:
    bench = Bench()
    bench.push("keeps", actor=True, held=[("CPU", UNIT)])
    bench.push("deep", depth=7)
    bench.push("actor", actor=True)
    for name in ("actor", "deep", "keeps"):
        assert bench.place() == [[name]]
        bench.end(name)
    creation = bench.push("other", actor=True)
    assert bench.scheduler.remove(creation) and not bench.scheduler.queued


def test_an_actor_keeps_what_it_holds_and_does_not_count_as_a_worker_with_tasks() -> None:
    bench = Bench(max_workers=1)
    bench.push("actor", actor=True)
    bench.place()
    slot = bench.slots["actor"]
    slot.actor = m.HeldActor(identity("actor"), 1, slot.worker_id)
    bench.scheduler.keep(slot, identity("actor"), (("disk", UNIT),))
    assert (bench.free("CPU"), bench.free("disk")) == (1, 0)
    assert not bench.scheduler.bound.reached()
    bench.scheduler.block(slot)
    assert bench.free("CPU") == 1, "it has none to lend"
    assert bench.scheduler.remove_worker(slot) == []
    assert bench.free("disk") == 1


def test_of_a_worker_that_is_gone_the_tasks_are_left_in_order_and_nothing_is_taken() -> None:
    bench = Bench()
    bench.push("a").template.measured(0.00001)
    bench.push("b")
    bench.place()
    slot = bench.slots["a"]
    bench.scheduler.block(slot)
    left = bench.scheduler.remove_worker(slot)
    assert [task.task_id for task in left] == [identity("a"), identity("b")]
    assert bench.scheduler.free == bench.scheduler.total
    assert not any(bench.scheduler.released.values())
    bench.push("c")
    assert bench.place(may_fork=False) == []


def test_the_room_for_more_is_by_number_and_by_bytes() -> None:
    bench = Bench()
    assert bench.scheduler.room() == limits.RAYLET_UNSTARTED_TASKS
    task = bench.push("a")
    assert bench.scheduler.room() == limits.RAYLET_UNSTARTED_TASKS - 1
    bench.scheduler.queued_bytes += limits.RAYLET_UNSTARTED_BYTES
    assert bench.scheduler.room() == 0
    assert bench.scheduler.reclaim(task.template.needs, 5) == [task]
    assert bench.scheduler.reclaim(task.template.needs, 5) == []


def test_jobs_that_take_turns_keep_a_worker_each() -> None:
    """Once nobody has used them for a while, as many stay as there are CPUs."""
    scheduler = LocalScheduler({"CPU": UNIT}, 0, max_workers=3)
    slots = []
    for number in range(4):
        key: PoolKey = (identity(f"job{number}"), (), 1, "")
        surplus = scheduler.surplus(key)
        assert surplus == (slots[:1] if number == 3 else [])  # so many may have tasks at a time
        slots.append(WorkerSlot(identity(f"w{number}"), key))
        scheduler.add_worker(slots[-1])
        scheduler.rest(slots[-1], float(number))
    assert scheduler.surplus() == slots[:3]
    slots[0].progress = 9.0
    assert scheduler.surplus() == slots[1:]
