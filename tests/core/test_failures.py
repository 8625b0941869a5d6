"""Errors that go on to what cannot run because of them."""

from __future__ import annotations

from zray.core import failures
from zray.protocol.errors import (
    STOPPED_MAX,
    TASK_RAISED,
    ErrorRecord,
    encode_error,
    error_text,
)


def test_the_error_of_an_argument_names_what_could_not_run() -> None:
    value = encode_error(ErrorRecord(TASK_RAISED, "boom", "ValueError", "f", "Traceback", pid=7))
    for name in ("g", "h"):
        value = failures.of_argument(value, name)
    record = failures.read(value)
    assert record.stopped == ["g", "h"]
    assert (record.function_name, record.message) == ("f", "boom")
    because = "could not run. At least one of the input arguments for this task could not be "
    because += "computed:"
    assert error_text(record).splitlines() == [
        f"{TASK_RAISED} h {because}",
        f"g {because}",
        "f failed (pid=7): ValueError: boom",
        "Traceback",
    ]


def test_a_long_chain_keeps_its_ends() -> None:
    value = encode_error(ErrorRecord(TASK_RAISED, "boom"))
    for number in range(100):
        value = failures.of_argument(value, f"t{number}")
    stopped = failures.read(value).stopped
    assert len(stopped) == STOPPED_MAX
    assert (stopped[0], stopped[-1]) == ("t0", "t99")


def test_a_record_that_cannot_be_read_goes_on_as_it_is() -> None:
    assert failures.of_argument(b"\xc1", "g") == b"\xc1"
