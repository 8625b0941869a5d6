"""What is said of errors that nobody has asked for."""

from __future__ import annotations

import pytest

from tests.core.benches import identity
from tests.core.client import benches
from tests.core.client.benches import ME, TWO, client, hear, resolve, submit
from zray.core.client.client import Client
from zray.core.client.unasked import UnaskedErrors
from zray.errors import ActorDiedError, NodeDiedError, TaskCancelledError, WorkerCrashedError
from zray.ids import object_id
from zray.protocol import messages as m
from zray.protocol.errors import TASK_RAISED, system_error


def error(code: str, name: str = "f") -> m.Outcome:
    value = system_error(code, "what happened", function_name=name, pid=7)
    return m.Outcome(object_id(identity(name)), m.ERROR, len(value), value)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def unasked(said: list[str]) -> UnaskedErrors:
    return UnaskedErrors(said.append, {})


@pytest.mark.parametrize("code", [TASK_RAISED, WorkerCrashedError.code, NodeDiedError.code])
def test_an_error_that_is_dropped_is_said(
    unasked: UnaskedErrors, said: list[str], code: str
) -> None:
    unasked.dropped(error(code))
    (text,) = said
    assert "RAY_IGNORE_UNHANDLED_ERRORS=1" in text
    assert "f failed (pid=7)" in text
    assert "what happened" in text


@pytest.mark.parametrize("code", [TaskCancelledError.code, ActorDiedError.code])
def test_what_the_program_did_itself_is_not_said(
    unasked: UnaskedErrors, said: list[str], code: str
) -> None:
    unasked.dropped(error(code))
    assert said == []


def test_an_error_that_was_asked_for_is_not_said(unasked: UnaskedErrors, said: list[str]) -> None:
    asked = error(TASK_RAISED)
    unasked.asked(asked)
    unasked.dropped(asked)
    unasked.dropped(error(TASK_RAISED, "g"))
    assert len(said) == 1
    assert "g failed" in said[0]


def test_what_was_seen_to_be_ready_counts_as_asked_for(said: list[str]) -> None:
    first, other = error(TASK_RAISED), error(TASK_RAISED, "g")
    value = m.Outcome(object_id(identity("v")), m.VALUE, 1, b"v")
    known = {outcome.object_id: outcome for outcome in (first, other, value)}
    unasked = UnaskedErrors(said.append, known)
    unasked.seen([first.object_id, value.object_id, object_id(identity("unknown"))])
    unasked.dropped(first)
    unasked.dropped(other)
    assert len(said) == 1 and "g failed" in said[0]


def test_a_record_that_cannot_be_read_is_not_said(unasked: UnaskedErrors, said: list[str]) -> None:
    unasked.dropped(m.Outcome(object_id(identity("f")), m.ERROR, 1, b"\xc1"))
    assert said == []


def test_where_nobody_says_it_nothing_is_kept() -> None:
    unasked = UnaskedErrors(None, {})
    unasked.asked(error(TASK_RAISED))
    unasked.dropped(error(TASK_RAISED))
    assert unasked._asked == {}


# ---- references that are passed on -----------------------------------------------------------

FAILED = system_error(TASK_RAISED, "what happened", function_name="f")


def fail(made: Client, *oids: bytes, seq: int = 1) -> None:
    outcomes = [m.Outcome(oid, m.ERROR, len(FAILED), FAILED) for oid in oids]
    hear(made, m.Result(seq, ME, outcomes))


def warned(made: Client) -> int:
    return len([told for told in made.prints.take() if isinstance(told, m.Notice)])


@pytest.mark.parametrize("field", ["dependencies", "nested"])
@pytest.mark.parametrize("when", ["before", "after", "dropped later"])
def test_what_others_have_is_not_said(field: str, when: str) -> None:
    made = client()
    (ref,) = submit(made)
    if when == "after":
        fail(made, ref)
    (other,) = submit(made, **{field: [ref]})
    if when == "dropped later":
        fail(made, ref)
    benches.said(made)
    made.references.remove(ref)
    if when == "before":
        fail(made, ref)
    assert warned(made) == 0 and not made.unasked.passed
    fail(made, other, seq=2)
    made.references.remove(other)  # of which nobody else knows
    assert warned(made) == 1


def test_nothing_is_kept_of_values_that_others_have() -> None:
    made = client()
    first, second = submit(made, TWO)
    submit(made, dependencies=[first, second])
    benches.said(made)
    made.references.remove(second)
    resolve(made, first)
    hear(made, m.Result(2, ME, [m.Outcome(second, m.VALUE, 1, b"x")]))
    assert [*made.unasked.passed] == [first]
    made.references.remove(first)
    assert not made.unasked.passed


@pytest.mark.parametrize("passed", [False, True])
def test_what_is_in_a_put_is_said_until_others_have_that(passed: bool) -> None:
    made = client()
    (ref,) = submit(made)
    fail(made, ref)
    put = made.references.put(b"[ref]", [ref])
    if passed:
        submit(made, dependencies=[put])
        benches.said(made)
    made.references.remove(ref)
    made.references.remove(put)
    assert warned(made) == (0 if passed else 1)
