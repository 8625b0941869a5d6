"""The simulator itself: repeatable, and telling when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from zray import limits
from zray.core import resources
from zray.core.client.actor_caller import ActorCaller
from zray.core.client.calls import ClientCalls
from zray.core.client.leases import ClientLeases
from zray.core.client.references import ClientReferences
from zray.core.head.object_table import ObjectTable
from zray.core.head.results import Results
from zray.core.head.task_records import NodeView
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.tasks import TaskManager
from zray.core.raylet.completions import Completions
from zray.core.raylet.leases import HostedLeases
from zray.core.worker.actor_inbox import ActorInbox
from zray.core.worker.served_lease import ServedLease
from zray.protocol import messages as m
from zray.testing import SimCluster, simulate
from zray.testing.processes.steps import Get, Program
from zray.testing.world.errors import Violation


@pytest.mark.parametrize("seed", [3, 17, 48])
def test_one_seed_has_one_trace_under_two_hash_seeds(seed: int) -> None:
    traces = []
    for hash_seed in ("1", "4242"):
        command = [sys.executable, "-m", "zray.testing.simulate", "--seed", str(seed), "--trace"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        traces.append(done.stdout.splitlines()[0])
    assert traces[0] == traces[1]
    assert traces[0].split()[0] == str(seed)


def test_two_seeds_have_two_traces() -> None:
    assert simulate.simulate(3) == simulate.simulate(3) != simulate.simulate(4)


def test_a_failure_names_its_seed_its_replay_and_the_last_events(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Results, target: bytes, upto: int) -> None:
        raise Violation("broken on purpose")

    monkeypatch.setattr(Results, "acked", broken)
    assert simulate.main(["--seed", "3"]) == 1
    text = capsys.readouterr().out
    assert "broken on purpose" in text
    assert "seed 3: " in text
    assert "replay: python -m zray.testing.simulate --seed 3 --verbose" in text
    story = text.partition("the last events:\n")[2].partition("replay:")[0].splitlines()
    assert 5 < len(story) <= 40
    assert any(line.split(maxsplit=1)[1].startswith("head <- d") for line in story)


def test_bounds_are_restored() -> None:
    before = limits.CHUNK_BYTES
    with pytest.raises(RuntimeError), SimCluster(1, bounds={"CHUNK_BYTES": 7}):
        assert limits.CHUNK_BYTES == 7
        raise RuntimeError
    assert before == limits.CHUNK_BYTES


# ---- what the checkers are worth: machines that are broken on purpose ----------------------


def no_dependencies_held(self: TaskManager, record: Any, spec: Any, now: float) -> None:
    for oid in (*spec.dependencies, *spec.nested):
        self._holders.named(oid, now)


def one_too_many(self: TaskScheduler, record: Any, *, front: bool = False) -> None:
    PUSH(self, record, front=front)
    self.classes[record.template.needs].ready += 1


def stays_full(self: NodeView, needs: Any) -> None:
    resources.give(self.free, needs)


def always_again(self: TaskManager, task_id: bytes, record: Any) -> bool:
    self.requeue(task_id, record)
    return True


def never_frees(self: ObjectTable, is_needed: Any) -> list[Any]:
    return []


def loses_ends(self: Completions) -> None:
    self._new.clear()


def runs_again(self: ActorInbox[Any], message: m.Calls, route: Any) -> list[Any]:
    for line in self._lines.values():
        line.next = 0
        line.kept.clear()
    return RECEIVE(self, message, route)


def never_ran(self: ClientCalls, calls: Any, actor: Any, *, maybe_executed: bool) -> None:
    for call in calls:
        call.may_have_run = False
    FAIL(self, calls, actor, maybe_executed=False)


def at_once(self: ActorCaller, state: m.ActorState) -> bool:
    return False


def no_promise(self: ClientReferences, oid: bytes) -> None:
    pass


def keeps_nothing(self: ServedLease[Any], pins: Any) -> None:
    pass


def has_begun_nothing(self: ClientLeases, lease: Any, message: m.LeaseEnded) -> None:
    OVER(self, lease, m.LeaseEnded(0, message.lease_id, 0, message.text))


def dies_silently(self: HostedLeases, slot: Any, begun: int, cause: str) -> None:
    if slot.lease is not None:
        self._forget(slot, slot.lease)


def forgets_its_death(self: Completions, actor: Any, *, intended: bool, text: str) -> None:
    pass


PUSH = TaskScheduler.push
RECEIVE = ActorInbox.receive
FAIL = ClientCalls._fail
OVER = ClientLeases._over


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (TaskManager, "_await_dependencies", no_dependencies_held),
        (TaskScheduler, "push", one_too_many),
        (NodeView, "give", stays_full),
        (TaskManager, "retry", always_again),
        (ObjectTable, "sweep", never_frees),
        (Completions, "flush", loses_ends),
        (ActorInbox, "receive", runs_again),
        (ClientCalls, "_fail", never_ran),
        (ActorCaller, "ends_incarnation", at_once),
        (ClientReferences, "_promise", no_promise),
        (Completions, "exited", forgets_its_death),
        (ServedLease, "keep", keeps_nothing),
        (ClientLeases, "_over", has_begun_nothing),
        (HostedLeases, "exited", dies_silently),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_machine_is_found_out(
    owner: type, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    monkeypatch.setattr("zray.testing.cluster.EVENTS_MAX", 100_000)
    assert any(simulate.try_seed(seed) is not None for seed in range(120))


def test_a_task_that_never_ends_is_a_failure_with_its_reason() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("add", [0.01, 0, 1], resources={"unheard-of": 10_000}))

    with SimCluster(1) as cluster:
        cluster.run(story)
        with pytest.raises(Violation, match="INFEASIBLE: needs CPU 1, unheard-of 1"):
            cluster.finish()
