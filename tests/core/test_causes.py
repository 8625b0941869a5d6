"""Causes: their bounds, and how people read them."""

from __future__ import annotations

import msgspec
import pytest

from zray import limits
from zray.core import causes, failures
from zray.core.causes import cause
from zray.errors import WorkerCrashedError
from zray.protocol import messages as m
from zray.protocol.errors import ErrorRecord, encode_error

ID = b"i" * 16


def test_whatever_is_put_in_fits_into_a_message() -> None:
    long = "x" * 100_000
    found = cause(
        *("task", b"i" * 40, long, long, long),
        details=[(long, long)] * 100,
        more=5,
        advice=long,
    )
    answer = m.Explained(0, 1, [m.Explanation("subject", [found] * limits.WHY_CHAIN_MAX)])
    data = msgspec.msgpack.encode(answer)
    assert msgspec.msgpack.decode(data, type=m.Explained) == answer
    assert len(data) * limits.WHY_SUBJECTS_MAX < limits.PAYLOAD_BYTES_SOFT
    assert len(found.details) + found.more == 105
    assert found.text.endswith("...")


def test_an_error_is_told_in_words() -> None:
    record = ErrorRecord(
        *("ZR-3001", "no luck", "ValueError", "work", "Traceback ..."),
        node="n1",
        pid=7,
        stopped=["next", "last"],
    )
    found = causes.failed("task", ID, "", encode_error(record))
    assert (found.code, found.text) == ("FAILED", "work raised ValueError: no luck")
    assert [(one.name, one.text) for one in found.details] == [
        ("code", "ZR-3001"),
        ("ran on", "n1, pid 7"),
        ("so it could not run", "last"),
        ("so it could not run", "next"),
    ]
    died = causes.failed("task", ID, "", failures.encode(WorkerCrashedError, "it died"))
    assert died.text == "it died" and not died.advice
    assert causes.failed("task", ID, "", b"no record").text == "its error cannot be read"


def test_lines_for_a_terminal() -> None:
    first = cause("task", ID, "a\x1b[2J", "WAIT", "waits\nlong", since_s=12.34)
    second = cause(
        *("node", ID, "n1", "SUSPECT", "silent"),
        details=[("n\t", "free")],
        more=1000,
        advice="look",
    )
    nameless = cause("object", ID, "", "READY", "is there")
    assert causes.lines([first, second, nameless]) == [
        "WAIT: waits\\nlong (for 12 s)",
        "<- node n1: SUSPECT: silent",
        "    n\\t: free",
        "    and 1,000 more",
        "    what would help: look",
        f"<- object {ID.hex()}: READY: is there",
    ]
    assert causes.chained([second, nameless]) == "SUSPECT: silent; READY: is there"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (150, "2 min 30 s"), (90_000, "25 h 0 min")],
)
def test_time_spans(seconds: float, words: str) -> None:
    assert causes.age(seconds) == words
