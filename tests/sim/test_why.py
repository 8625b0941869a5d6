"""Whoever asks why gets an answer in time, whatever happens to those who know, and it is true."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.stories import until_done
from zray import limits
from zray.core.causes import UNKNOWN
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Ask, Get, Program, Ref, Sleep


def asking(driver: Any, random: Random) -> Program:
    """Somebody else asks about all that the first program submits, every now and then."""
    while len(answers) < 60:
        yield Sleep(0.2)
        subjects = [ref.oid.hex() for ref in random.sample(asked, min(len(asked), 4))]
        subjects.append(driver.client.job_id.hex())
        began = driver.clock.now
        answer = yield Ask(lambda seq, told=subjects: m.Why(seq, told))  # type: ignore[misc]
        assert [one.subject for one in answer.answers] == subjects
        assert all(0 < len(one.causes) <= limits.WHY_CHAIN_MAX for one in answer.answers)
        answers.append((driver.clock.now - began, answer.answers))


asked: list[Ref] = []
answers: list[tuple[float, list[m.Explanation]]] = []


def working(driver: Any, random: Random) -> Program:
    refs = driver.submit("recursion", [0.3, 5])
    refs += [driver.submit("add", [1.0, 0, number])[0] for number in range(12)]
    last = driver.submit("add", [0.5, 0, refs[1], refs[2]])
    asked.extend([*refs, *last])
    yield Get([*refs, *last])


def codes_seen() -> set[str]:
    return {cause.code for _, told in answers for one in told for cause in one.causes}


@pytest.fixture(autouse=True)
def forget() -> None:
    asked.clear()
    answers.clear()


@pytest.mark.parametrize("eager", [False, True])
def test_an_answer_is_quick_where_nobody_is_in_trouble(eager: bool) -> None:
    with SimCluster(1, nodes=[{"CPU": 2}, {"CPU": 1}], eager=eager) as cluster:
        second = cluster.add_driver()
        cluster.run(working)
        cluster.run(asking, cluster.drivers.index(second))
        until_done(cluster)
        assert max(took for took, _ in answers) < limits.WHY_ASK_S / 2
        seen = codes_seen()
        assert {"LEASED", "RUNNING", "BLOCKED", "WAIT_DEPS", "READY"} <= seen, seen
        cluster.finish()


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_comes_whoever_is_frozen_killed_or_started_again(seed: int) -> None:
    with SimCluster(seed, nodes=[{"CPU": 2}, {"CPU": 1}, {"CPU": 1}]) as cluster:
        second = cluster.add_driver()
        cluster.run(working)
        cluster.run(asking, cluster.drivers.index(second))
        cluster.run_for(1.0)
        cluster.freeze(cluster.raylets[seed % 3], 3.0)
        cluster.run_for(0.5)
        cluster.freeze(cluster.drivers[0], 2.0)
        cluster.run_for(2.0)
        if seed % 2:
            cluster.restart_head()
        else:
            cluster.lose_machine(cluster.raylets[(seed + 1) % 3], 5.0)
        until_done(cluster, 120.0)
        assert len(answers) >= 60
        late = [took for took, _ in answers if took > limits.WHY_ASK_S + 0.5]
        assert len(late) <= 2, late  # while there is no head, nobody answers
        assert codes_seen() - {UNKNOWN}
        cluster.finish()
