"""A real worker that is leased: what it takes, answers, gives back, and keeps for its submitter."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.benches import identity, object_of
from tests.nodes.worker.leased_rig import CPU, DRIVER, JOB, Rig, result, task
from zray import limits
from zray.ids import split_objects, split_tasks
from zray.protocol import messages as m
from zray.runtime import serialization
from zray.runtime.references import ObjectRef


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    try:
        yield rig
    finally:
        rig.close()


def double(value: int) -> int:
    return 2 * value


def wait_for(path: str) -> str:
    """Run until the file is there, and say that it has begun."""
    import time
    from pathlib import Path

    Path(path + ".begun").touch()
    while not Path(path).exists():
        time.sleep(0.005)
    return path


def test_tasks_and_their_ends_go_straight(rig: Rig) -> None:
    submitter = rig.lease("l1")
    made_of = submitter.define(double)
    submitter.put(task("t0", made_of, 1))
    assert result(submitter.done("t0")) == 2
    submitter.put(task("t1", made_of, 2), task("t2", made_of, 3))
    ends = submitter.hears(m.Done).tasks
    while len(ends) < 2:
        ends += submitter.hears(m.Done).tasks
    assert [(end.task_id, result(end)) for end in ends] == [
        (identity("t1"), 4),
        (identity("t2"), 6),
    ]
    assert [one.name for one in rig.raylet if isinstance(one, m.Runs)] == ["double"]
    assert rig.started() == 3
    ended = rig.hears(m.LeaseEnded)
    assert (ended.lease_id, ended.begun, ended.text) == (identity("l1"), 3, "")
    assert submitter.hears(m.LeaseEnded).lease_id == identity("l1")
    rig.wait(lambda: submitter.closed, "the worker closes the link")
    assert not [one for one in rig.raylet if isinstance(one, (m.Done, m.Returned))]


def test_a_lease_without_tasks_ends_soon_and_what_comes_too_late_stays_in_the_queue(
    rig: Rig,
) -> None:
    submitter = rig.lease("l1")
    made_of = submitter.define(double)
    submitter.put(task("t0", made_of, 1))
    submitter.done("t0")
    began = time.monotonic()
    submitter.hears(m.LeaseEnded)
    assert time.monotonic() - began > 0.5 * limits.LEASE_IDLE_S
    submitter.put(task("t1", made_of, 1))
    rig.stay(0.05)
    assert submitter.queue.take() is not None and rig.started() == 1


def test_a_lease_whose_submitter_does_not_come_ends(rig: Rig) -> None:
    rig.grant("l1")
    assert rig.hears(m.LeaseEnded).begun == 0


def test_a_template_may_come_after_the_packet_that_needs_it(rig: Rig) -> None:
    submitter = rig.lease("l1")
    submitter.put(task("t0", identity("double"), 4))
    rig.stay(0.03)
    submitter.define(double)
    assert result(submitter.done("t0")) == 8


def test_a_packet_whose_template_never_comes_is_given_back(rig: Rig) -> None:
    submitter = rig.lease("l1")
    submitter.put(task("t0", identity("double"), 4))
    assert split_tasks(submitter.hears(m.Returned).task_ids) == [identity("t0")]
    submitter.hears(m.LeaseEnded)
    assert rig.started() == 0


def test_leases_one_after_the_other_do_not_mix(rig: Rig) -> None:
    first = rig.lease("l1")
    made_of = first.define(double)
    first.put(task("t0", made_of, 1))
    first.done("t0")
    rig.hears(m.LeaseEnded)
    second_id = rig.grant("l2")
    stale = rig.connect(second_id, greets=identity("l1"))
    stale.put(task("stale", made_of, 1))
    rig.wait(lambda: stale.closed, "a greeting for another lease is turned away")
    second = rig.connect(second_id)
    second.define(double)
    second.put(task("t1", made_of, 5))
    assert result(second.done("t1")) == 10
    assert rig.started() == 2


def test_tasks_by_way_of_the_raylet_follow_a_lease(rig: Rig) -> None:
    submitter = rig.lease("l1")
    submitter.define(double)
    submitter.put(task("t0", identity("double"), 1))
    submitter.done("t0")
    rig.hears(m.LeaseEnded)
    rig.tell(m.Tasks(0, [task("t1", identity("double"), 2)]))
    (end,) = rig.hears(m.Done).tasks
    assert result(end) == 4 and rig.started() == 2


# ---- giving back -----------------------------------------------------------------------------


def test_a_task_that_takes_long_holds_up_neither_ends_nor_others(rig: Rig, tmp_path: Path) -> None:
    submitter = rig.lease("l1")
    short, long = submitter.define(double), submitter.define(wait_for)
    file = str(tmp_path / "go")
    submitter.put(task("first", short, 1))
    submitter.done("first")
    submitter.put(task("t0", short, 1), task("t1", long, file), task("t2", short, 2))
    assert submitter.done("t0").task_id == identity("t0")
    assert split_tasks(submitter.hears(m.Returned).task_ids) == [identity("t2")]
    Path(file).touch()
    assert result(submitter.done("t1")) == file


def test_a_revoked_lease_ends_when_the_running_task_has(rig: Rig, tmp_path: Path) -> None:
    submitter = rig.lease("l1")
    short, long = submitter.define(double), submitter.define(wait_for)
    file = str(tmp_path / "go")
    submitter.put(task("t0", long, file), task("t1", short, 2))
    rig.wait(Path(file + ".begun").exists, "the task has begun")
    rig.control(m.Revoke(0, identity("l1")))
    assert split_tasks(submitter.hears(m.Returned).task_ids) == [identity("t1")]
    submitter.put(task("t2", short, 3))
    rig.stay(0.05)
    assert not submitter.said
    Path(file).touch()
    assert result(submitter.done("t0")) == file
    submitter.hears(m.LeaseEnded)
    assert rig.hears(m.LeaseEnded).begun == 1
    assert submitter.queue.take() is not None


def test_a_revoke_reaches_an_idle_worker(rig: Rig) -> None:
    took = []
    for lease in ("l1", "l2", "l3", "l4", "l5"):  # the machine may be busy in some of them
        submitter = rig.lease(lease)
        rig.stay(0.02)
        began = time.monotonic()
        rig.control(m.Revoke(0, identity(lease)))
        submitter.hears(m.LeaseEnded)
        took.append(time.monotonic() - began)
        rig.hears(m.LeaseEnded)
    assert min(took) < 0.7 * limits.LEASE_IDLE_S


def test_a_revoke_may_come_before_its_lease(rig: Rig) -> None:
    rig.control(m.Revoke(0, identity("l2")))
    rig.stay(0.05)
    began = time.monotonic()
    rig.grant("l2")
    rig.hears(m.LeaseEnded)
    assert time.monotonic() - began < 0.9 * limits.LEASE_CONNECT_S


def test_a_lease_whose_submitter_leaves_ends_when_the_running_task_has(
    rig: Rig, tmp_path: Path
) -> None:
    submitter = rig.lease("l1")
    short, long = submitter.define(double), submitter.define(wait_for)
    file = str(tmp_path / "go")
    submitter.put(task("t0", long, file), task("t1", short, 2))
    rig.wait(Path(file + ".begun").exists, "the task has begun")
    submitter.put(task("t2", short, 3))
    submitter.close()
    rig.stay(0.05)
    Path(file).touch()
    assert rig.hears(m.LeaseEnded).begun == rig.started() <= 2


def blocks(refs: list[Any]) -> str:
    import zray

    return str(zray.get(refs[0]))


def test_a_task_that_blocks_gives_back_what_is_behind_it(rig: Rig) -> None:
    submitter = rig.lease("l1")
    short, waits = submitter.define(double), submitter.define(blocks)
    wanted = object_of(identity("other"))
    submitter.put(task("t0", waits, [ObjectRef(wanted)]), task("t1", short, 1))
    assert split_tasks(submitter.hears(m.Returned).task_ids) == [identity("t1")]
    rig.hears(m.Blocked)
    submitter.put(task("t2", short, 2))
    rig.stay(0.05)
    assert submitter.queue.take() is not None  # it takes nothing meanwhile
    data, _ = serialization.dumps("value")
    rig.tell(m.Result(0, rig.worker_id, [m.Outcome(wanted, m.VALUE, len(data), data)]))
    rig.hears(m.Unblocked)
    assert result(submitter.done("t0")) == "value"


# ---- cancels and deaths ------------------------------------------------------------------------


def test_a_running_task_is_interrupted_and_the_raylet_spares_the_worker(
    rig: Rig, tmp_path: Path
) -> None:
    submitter = rig.lease("l1")
    long = submitter.define(wait_for)
    file = str(tmp_path / "go")
    submitter.put(task("t0", long, file))
    rig.wait(Path(file + ".begun").exists, "the task has begun")
    rig.control(m.CancelTask(0, identity("t0"), 1, False))
    assert submitter.done("t0").status == m.CANCELLED
    assert split_tasks(rig.hears(m.Returned).task_ids) == [identity("t0")]


def test_a_task_that_waits_at_the_worker_is_given_back(rig: Rig, tmp_path: Path) -> None:
    submitter = rig.lease("l1")
    short, long = submitter.define(double), submitter.define(wait_for)
    file = str(tmp_path / "go")
    submitter.put(task("t0", long, file), task("t1", short, 1))
    rig.wait(Path(file + ".begun").exists, "the task has begun")
    rig.control(m.CancelTask(0, identity("t1"), 1, False))
    assert split_tasks(submitter.hears(m.Returned).task_ids) == [identity("t1")]
    assert split_tasks(rig.hears(m.Returned).task_ids) == [identity("t1")]
    rig.control(m.CancelTask(0, identity("t7"), 1, True))
    assert split_tasks(rig.hears(m.Returned).task_ids) == [identity("t7")]
    rig.control(m.CancelTask(0, identity("t0"), 1, True))  # the raylet ends this worker soon
    rig.stay(0.05)
    assert not submitter.said and not [o for o in rig.raylet if isinstance(o, m.Returned)]


def test_what_a_worker_that_died_had_not_taken_can_be_taken_back(rig: Rig, tmp_path: Path) -> None:
    submitter = rig.lease("l1")
    long = submitter.define(wait_for)
    file = str(tmp_path / "go")
    submitter.put(task("t0", long, file))
    submitter.put(task("t1", long, file))
    rig.wait(Path(file + ".begun").exists, "the task has begun")
    rig.wait(lambda: bool(rig.pid), "the pid is known")
    os.kill(rig.pid, signal.SIGKILL)
    rig.wait(lambda: submitter.closed and rig.exited, "the worker is gone")
    assert rig.started() == 1
    assert submitter.queue.take() is not None and submitter.queue.take() is None


# ---- references ------------------------------------------------------------------------------


def makes_reference(value: int) -> list[Any]:
    import zray

    return [zray.put(value)]


def test_what_a_result_refers_to_is_kept_until_the_submitter_holds_it(rig: Rig) -> None:
    submitter = rig.lease("l1")
    made_of = submitter.define(makes_reference)
    submitter.put(task("t0", made_of, 3))
    done = submitter.hears(m.Done)
    assert done.seq == 1
    (inner,) = done.tasks[0].results[0].contained
    put = rig.hears(m.Put)
    assert put.outcome.object_id == inner
    submitter.hears(m.LeaseEnded)
    rig.stay(0.05)
    assert not submitter.closed and not [o for o in rig.raylet if isinstance(o, m.Drop)]
    submitter.say(m.Ack(0, done.seq))
    assert split_objects(rig.hears(m.Drop).object_ids) == [inner]
    rig.wait(lambda: submitter.closed, "the worker closes the link")


def test_acknowledgements_are_read_while_the_next_task_runs(rig: Rig, tmp_path: Path) -> None:
    submitter = rig.lease("l1")
    made_of, long = submitter.define(makes_reference), submitter.define(wait_for)
    file = str(tmp_path / "go")
    submitter.put(task("t0", made_of, 3))
    submitter.put(task("t1", long, file))
    done = submitter.hears(m.Done)
    rig.wait(Path(file + ".begun").exists, "the task has begun")
    submitter.say(m.Ack(0, done.seq))
    rig.stay(0.1)
    Path(file).touch()
    assert submitter.hears(m.Done).seq == 0
    rig.hears(m.Drop)


def keeps(refs: list[Any]) -> int:
    import sys

    sys.modules["kept"] = refs  # type: ignore[assignment]
    return 1


def test_the_cluster_knows_first_what_a_task_keeps_of_its_arguments(rig: Rig) -> None:
    rig.answers = False
    submitter = rig.lease("l1")
    made_of, short = submitter.define(keeps), submitter.define(double)
    kept = object_of(identity("other"))
    submitter.put(task("t0", made_of, [ObjectRef(kept)]))
    assert split_objects(rig.hears(m.Hold).object_ids) == [kept]
    sync = rig.hears(m.Sync)
    submitter.put(task("t1", short, 4))
    assert result(submitter.done("t1")) == 8
    rig.stay(1.5 * limits.LEASE_IDLE_S)
    assert not submitter.said  # nor has the lease ended
    rig.tell(m.Synced(0, sync.seq))
    done = submitter.done("t0")
    assert (result(done), done.borrowed) == (1, [])
    submitter.hears(m.LeaseEnded)


def counts(refs: list[Any]) -> int:
    return len(refs)


def test_arguments_that_are_only_looked_at_cost_no_round_trip(rig: Rig) -> None:
    submitter = rig.lease("l1")
    made_of = submitter.define(counts)
    submitter.put(task("t0", made_of, [ObjectRef(object_of(identity("other")))]))
    assert result(submitter.done("t0")) == 1
    assert not [one for one in rig.raylet if isinstance(one, (m.Sync, m.Hold))]


def test_a_second_grant_is_turned_down(rig: Rig) -> None:
    submitter = rig.lease("l1")
    rig.tell(m.Grant(0, identity("l2"), JOB, DRIVER, CPU))
    assert rig.hears(m.LeaseEnded).lease_id == identity("l2")
    submitter.put(task("t0", submitter.define(double), 1))
    assert result(submitter.done("t0")) == 2
