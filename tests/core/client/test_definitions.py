"""Functions and templates that a process has sent, without the client: once, and until when."""

from __future__ import annotations

from typing import Any

from tests.core.benches import FUNCTION, identity, object_of
from tests.core.client.benches import TWO, WORK
from zray.core.client.definitions import ClientDefinitions
from zray.protocol import messages as m


class Bench:
    def __init__(self, *, remote: bool = True) -> None:
        self.outbox: list[m.Message] = []
        self.published: list[bytes] = []
        self._numbers = 0
        self.definitions = ClientDefinitions(
            outbox=self.outbox, publish=self.published.extend, number=self._number, remote=remote
        )

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def define(self) -> None:
        self.definitions.export(m.Export(0, FUNCTION, "work", b"code", [object_of(identity("x"))]))
        self.definitions.template(WORK)

    def taken(self) -> list[Any]:
        taken = [*self.outbox]
        self.outbox.clear()
        return taken


def test_both_are_sent_once_and_what_the_function_refers_to_is_published() -> None:
    bench = Bench()
    for _ in range(2):
        bench.define()
    assert [type(message) for message in bench.taken()] == [m.Export, m.Template]
    assert bench.published == [object_of(identity("x"))]


def test_a_function_goes_when_nothing_names_it_and_all_made_of_it_has_ended() -> None:
    bench = Bench()
    bench.define()
    for _ in range(2):
        bench.definitions.name(FUNCTION)
    bench.definitions.use(WORK.template_id)
    bench.taken()
    bench.definitions.unname(FUNCTION)
    bench.definitions.unname(FUNCTION)
    assert not bench.taken()
    bench.definitions.unuse(WORK.template_id)
    assert bench.taken() == [m.Forget(0, FUNCTION)]
    assert not bench.definitions.templates
    bench.define()  # it is named again
    assert [type(message) for message in bench.taken()] == [m.Export, m.Template]


def test_a_function_that_is_named_again_in_time_stays() -> None:
    bench = Bench()
    bench.define()
    bench.definitions.name(FUNCTION)
    bench.definitions.use(WORK.template_id)
    bench.definitions.unname(FUNCTION)
    bench.define()
    bench.definitions.name(FUNCTION)
    bench.taken()
    bench.definitions.unuse(WORK.template_id)
    assert not bench.taken()


def test_a_refusal_is_of_every_template_of_the_function() -> None:
    bench = Bench()
    bench.define()
    bench.definitions.template(TWO)
    export, *_ = bench.taken()
    assert bench.definitions.refuse(export.seq, "ZR-1", "too large") == FUNCTION
    for each in (WORK, TWO):
        assert bench.definitions.refusal(each.template_id) == ("ZR-1", "too large")
    assert bench.definitions.refuse(99, "ZR-1", "something else") == b""


def test_a_new_session_gets_templates_and_those_functions_that_the_head_may_not_have() -> None:
    bench = Bench()
    bench.define()
    before = bench.taken()
    bench.definitions.resume()
    assert sorted(map(repr, bench.taken())) == sorted(map(repr, before))
    export = next(message for message in before if isinstance(message, m.Export))
    bench.definitions.durable([FUNCTION], export.seq + 50)  # it was of an earlier one
    bench.definitions.resume()
    assert len(bench.taken()) == 2
    bench.definitions.durable([FUNCTION], export.seq)
    bench.definitions.resume()
    assert [type(message) for message in bench.taken()] == [m.Template]


def test_what_a_worker_exports_is_for_its_node_to_tell_again() -> None:
    bench = Bench(remote=False)
    bench.define()
    bench.taken()
    bench.definitions.resume()
    assert [type(message) for message in bench.taken()] == [m.Template]
