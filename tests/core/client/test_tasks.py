"""The tasks of a process, without the client: the window, what ends here, what is told again."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.core.benches import identity, object_of, value
from tests.core.client.benches import ME, TWO, WORK, Lower
from zray import limits
from zray.core import failures
from zray.core.client.tasks import ClientTasks
from zray.errors import MessageTooLargeError, TaskCancelledError
from zray.ids import split_objects
from zray.protocol import messages as m


class Bench(Lower):
    def __init__(self) -> None:
        super().__init__()
        self.tasks = ClientTasks(
            me=self.me,
            outbox=self.outbox,
            outcomes=self.outcomes,
            unresolved=self.unresolved,
            results=self.results,
            waiters=self.waiters,
            references=self.references,
            definitions=self.definitions,
            remote=True,
        )
        for made_of in (WORK, TWO):
            self.definitions.template(made_of)
        self.taken()

    def submit(
        self, name: str, made_of: m.Template = WORK, data: bytes = b"", **fields: Any
    ) -> list[bytes]:
        spec = m.TaskSpec(identity(name), made_of.template_id, data, **fields)
        return self.tasks.submit(spec, made_of.num_returns)

    def submitted(self) -> list[bytes]:
        self.tasks.flush()
        return [spec.task_id for message in self.taken(m.Submit) for spec in message.tasks]

    def error(self, oid: bytes) -> str:
        """The code of the error that this process has in place of the value."""
        assert self.outcomes[oid].kind == m.ERROR
        return failures.read(self.outcomes[oid].value).code


def test_bytes_under_way_bound_what_is_submitted_and_outcomes_open_the_window() -> None:
    bench, half = Bench(), bytes(limits.CLIENT_WINDOW_BYTES // 2)
    for name in ("t1", "t2", "t3"):
        bench.submit(name, data=half)
        names = bench.submitted()
        assert names == ([identity(name)] if name != "t3" else [])
    bench.tasks.on_result(m.Result(1, ME, [value(identity("t1"))]))
    assert bench.submitted() == [identity("t3")]
    assert bench.tasks.ack_upto == 1


def test_a_spec_is_kept_until_all_of_its_outcome_has_come() -> None:
    bench = Bench()
    first, second = bench.submit("t1", TWO)
    bench.submitted()
    bench.tasks.on_result(m.Result(0, ME, [value(identity("t1"))]))  # a part
    assert bench.outcomes[first].value == b"value" and identity("t1") in bench.unresolved
    assert not bench.tasks.ack_upto
    bench.tasks.disconnected()
    bench.tasks.resubmit()
    assert bench.submitted() == [identity("t1")]
    rest = m.Outcome(second, m.VALUE, 5, b"other")
    bench.tasks.on_result(m.Result(1, ME, [value(identity("t1")), rest]))
    assert not bench.unresolved and bench.tasks.in_flight == 0


def test_a_new_session_hears_of_returns_that_nobody_wants_and_not_of_the_backlog() -> None:
    bench = Bench()
    first, second = bench.submit("t1", TWO)
    bench.submitted()
    bench.submit("t2")
    bench.references.remove(second)
    bench.taken()
    bench.tasks.resubmit()
    submit, drop = bench.taken()
    assert [spec.task_id for spec in submit.tasks] == [identity("t1")]
    assert split_objects(drop.object_ids) == [second]
    assert first in bench.references


def test_a_cancel_is_told_to_each_session_until_the_outcome_is_here() -> None:
    bench = Bench()
    bench.submit("t1")
    bench.submitted()
    bench.tasks.cancel(identity("t1"), force=True, recursive=False)
    cancel = m.Cancel(0, identity("t1"), True, False)
    assert bench.taken() == [cancel]
    bench.tasks.cancel_again()
    assert bench.taken() == [cancel]
    bench.tasks.on_result(m.Result(1, ME, [value(identity("t1"))]))
    bench.tasks.cancel_again()
    assert not bench.taken()


def test_what_was_cancelled_in_the_backlog_lets_go_of_its_arguments_and_takes_no_room() -> None:
    bench, argument = Bench(), object_of(identity("x"))
    bench.references.add(argument)
    first = [bench.submit(f"t{number}", dependencies=[argument])[0] for number in range(200)]
    bench.references.remove(argument)
    for oid in first[1:]:
        bench.tasks.cancel(oid[:16], force=False, recursive=False)
    assert len(bench.tasks.backlog) < 100
    assert bench.error(first[1]) == TaskCancelledError.code
    assert argument in bench.references
    bench.tasks.cancel(first[0][:16], force=False, recursive=False)
    assert argument not in bench.references and not bench.submitted()


def test_a_task_that_is_too_large_to_send_fails_alone_and_others_can_be_told_of_it() -> None:
    bench = Bench()
    (large,) = bench.submit("t1")
    (other,) = bench.submit("t2")
    bench.tasks.flush()
    (submit,) = bench.taken(m.Submit)
    bench.tasks.too_large([submit.tasks[0]], "it does not fit into a frame")
    assert bench.error(large) == MessageTooLargeError.code and other not in bench.outcomes
    assert [put.outcome.object_id for put in bench.taken(m.Put)] == [large]
    assert list(bench.unresolved) == [identity("t2")] and bench.tasks.in_flight == 1


@pytest.mark.parametrize("sent", [True, False])
def test_tasks_of_a_refused_function_fail_here_and_are_cancelled_where_they_were_sent(
    sent: bool,
) -> None:
    bench = Bench()
    (oid,) = bench.submit("t1")
    if sent:
        bench.submitted()
    bench.definitions.refuse(bench.definitions.templates[WORK.template_id].seq, "ZR-1", "no")
    bench.tasks.definition_refused()
    assert bench.error(oid) == "ZR-1" and not bench.unresolved
    assert [type(message) for message in bench.taken()] == [m.Cancel, m.Put][not sent :]
    (later,) = bench.submit("t2")
    assert bench.error(later) == "ZR-1" and not bench.submitted()


def test_what_is_urgent_does_not_wait_for_the_window(narrow: None) -> None:
    bench = Bench()
    urgent = replace(WORK, template_id=identity("urgent"), priority=1)
    low = replace(WORK, template_id=identity("low"), priority=-1)
    for made_of in (urgent, low):
        bench.definitions.template(made_of)
    for name, made_of in [("t1", WORK), ("t2", WORK), ("l", low), ("u", urgent)]:
        bench.submit(name, made_of)
        if name == "t1":
            assert bench.submitted() == [identity("t1")]
    assert bench.submitted() == [identity("u")]
