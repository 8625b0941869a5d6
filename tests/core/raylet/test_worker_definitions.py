"""Functions and templates of a node's workers, alone."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.core.benches import FUNCTION, identity, template
from zray.core.raylet.worker_definitions import WorkerDefinitions
from zray.protocol import messages as m

W1, W2 = identity("w1"), identity("w2")
WORK = template(returns=2)
EXPORT = m.Export(9, FUNCTION, "work", b"code")


class Bench:
    """Two workers; what the head may refuse is numbered from 100 on."""

    def __init__(self) -> None:
        self.to_head: list[Any] = []
        self.numbered: dict[int, tuple[bytes, int]] = {}
        self.needed: set[bytes] = set()
        self._next = count(100)
        self.definitions = WorkerDefinitions(
            *(self.to_head.append, self._number),
            *(lambda worker_id, number: self.numbered.pop(number, None), self._needed),
        )
        for worker in (W1, W2):
            self.definitions.employ(worker)

    def _number(self, worker_id: bytes, seq: int) -> int:
        number = next(self._next)
        self.numbered[number] = (worker_id, seq)
        return number

    def _needed(self, worker_id: bytes) -> set[bytes]:
        return self.needed

    def told(self) -> list[Any]:
        messages = [*self.to_head]
        self.to_head.clear()
        return messages

    def resumed(self) -> list[Any]:
        self.definitions.resume()
        return self.told()


def test_a_function_is_told_again_until_it_is_stored() -> None:
    bench = Bench()
    bench.definitions.on_export(W1, EXPORT)
    (export,) = bench.told()
    assert (export.seq, export.holder) == (100, W1) and bench.numbered == {100: (W1, 9)}
    assert bench.resumed() == [export]
    bench.definitions.on_exported(m.Exported(0, [FUNCTION], 99))  # it was of an earlier one
    assert bench.resumed() == [export]
    bench.definitions.on_exported(m.Exported(0, [FUNCTION], 100))
    assert bench.resumed() == []


def test_a_template_is_its_worker_s_and_has_one_number_however_often_it_is_sent() -> None:
    bench = Bench()
    for worker in (W1, W1, W2):
        bench.definitions.on_template(worker, WORK)
    assert [(told.seq, told.holder) for told in bench.told()] == [(100, W1), (100, W1), (101, W2)]
    assert [told.seq for told in bench.definitions.of_worker(W2)] == [101]
    assert bench.definitions.returns(WORK.template_id) == 2


def test_a_function_that_another_worker_needs_is_told_on_when_its_sender_ends() -> None:
    bench = Bench()
    bench.definitions.on_export(W1, EXPORT)
    for worker in (W1, W2):
        bench.definitions.on_template(worker, WORK)
    bench.definitions.dismiss(W1)
    bench.told()
    assert [export.holder for export in bench.resumed()] == [W2]
    assert WORK.template_id in bench.definitions.templates
    bench.definitions.on_forget(W2, m.Forget(0, FUNCTION))
    assert bench.told() == [m.Forget(0, FUNCTION, W2)] and bench.resumed() == []
    assert not bench.definitions.templates


def test_a_function_of_a_task_that_may_be_asked_for_again_goes_with_its_outcome() -> None:
    bench = Bench()
    bench.definitions.on_template(W1, WORK)
    bench.told()
    bench.needed = {WORK.template_id}
    bench.definitions.on_forget(W1, m.Forget(0, FUNCTION))
    assert bench.told() == [] and W1 in bench.definitions.leaving
    bench.needed = set()
    bench.definitions.let_go(W1)
    assert bench.told() == [m.Forget(0, FUNCTION, W1)] and not bench.definitions.leaving
    assert not bench.numbered, "it cannot be refused any more"


def test_a_function_that_is_sent_again_meanwhile_stays() -> None:
    bench = Bench()
    bench.definitions.on_template(W1, WORK)
    bench.needed = {WORK.template_id}
    bench.definitions.on_forget(W1, m.Forget(0, FUNCTION))
    bench.definitions.on_template(W1, WORK)
    assert W1 not in bench.definitions.leaving
