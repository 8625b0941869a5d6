"""What nobody holds any more is freed wherever it is, with all that was kept for it."""

from __future__ import annotations

from tests.core.benches import identity, object_of, spec, template, value
from tests.core.head.tables import Tables
from zray.core.head.garbage_collector import GarbageCollector
from zray.core.head.task_records import GONE
from zray.protocol import messages as m

WORK = template()
T = identity("t")
OID = object_of(T)


class Kept:
    """What is kept of tasks to make their results again, and of actors."""

    def __init__(self) -> None:
        self.origins: dict[bytes, None] = {}
        self.gone: list[bytes] = []

    def freed(self, task_id: bytes) -> None:
        self.gone.append(task_id)

    handle_gone = freed


class Bench(Tables):
    def __init__(self) -> None:
        super().__init__()
        self.kept = Kept()
        holders = self.make_holders()
        self.garbage = GarbageCollector(
            outbox=self.outbox,
            members=self.members,
            tasks=self.tasks,
            objects=self.objects,
            results=self.results,
            transfers=self.transfers,
            holders=holders,
            lineage=self.kept,  # type: ignore[arg-type]
            actors=self.kept,  # type: ignore[arg-type]
            actor_table=self.actors,
        )
        self.n1 = self.node("n1").process_id
        self.job = self.driver("d")

    def freed(self) -> dict[bytes, list[m.Free]]:
        self.garbage.collect(0.0)
        return self.sent(m.Free)


def test_each_node_that_has_a_copy_is_told_once_of_all_that_goes() -> None:
    bench = Bench()
    inner, outer = object_of(identity("inner")), object_of(identity("outer"))
    bench.objects.settle(value(identity("inner")), (bench.n1,))
    outcome = value(identity("outer"), contained=[inner])
    bench.objects.settle(outcome, (bench.n1, identity("not there")))
    bench.objects.hold(bench.job.process_id, outer, process=True)
    assert bench.freed() == {}
    bench.objects.drop(bench.job.process_id, outer, process=True)
    assert bench.freed() == {bench.n1: [m.Free(0, outer + inner)]}
    assert not bench.objects.records and bench.freed() == {}


def test_a_driver_is_told_of_what_it_serves_alone() -> None:
    bench = Bench()
    for name, served in (("put", True), ("result", False)):
        record = bench.objects.settle(value(identity(name)), (bench.job.process_id,))
        record.served = served
    freed = bench.freed()
    assert freed == {bench.job.process_id: [m.Free(0, object_of(identity("put")))]}


def test_a_task_that_has_not_ended_keeps_its_result_s_place() -> None:
    bench = Bench()
    record = bench.task(spec("t", WORK), WORK, bench.job)
    bench.objects.hold(bench.job.process_id, OID, process=True)
    bench.objects.drop(bench.job.process_id, OID, process=True)
    bench.freed()
    assert OID in bench.objects.records
    record.state = GONE
    bench.tasks.remove(T)
    bench.objects.unheld(OID)
    bench.freed()
    assert OID not in bench.objects.records


def test_its_submitter_may_ask_again_until_it_has_acknowledged_the_outcome() -> None:
    bench = Bench()
    known = bench.objects.settle(value(T), (bench.n1,))
    bench.results.tell_owner(bench.job.process_id, value(T), known)
    bench.results.flush(0.0)
    assert bench.freed() == {}
    bench.results.acked(bench.job.process_id, bench.job.result_seq)
    assert bench.freed() == {bench.n1: [m.Free(0, OID)]}


def test_who_has_asked_for_it_is_told_that_it_is_gone() -> None:
    bench = Bench()
    bench.objects.settle(m.Outcome(OID, m.VALUE | m.LOCATED, 100_000), (bench.n1,))
    bench.members.nodes[bench.n1].connected = False  # so that whoever asks has to wait
    bench.transfers.pull(bench.job.process_id, m.Pull(0, 4, OID))
    bench.garbage.collect(0.0)
    (failed,) = bench.sent(m.PullFailed)[bench.job.process_id]
    assert failed.transfer == 4


def test_what_was_kept_to_make_it_again_is_looked_at() -> None:
    bench = Bench()
    bench.kept.origins[T] = None
    for name in ("t", "u"):
        bench.objects.settle(value(identity(name)), (bench.n1,))
    bench.freed()
    assert bench.kept.gone == [T]
