"""What is said of errors that nobody has asked for."""

from __future__ import annotations

import pytest

from tests.core.benches import identity
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
