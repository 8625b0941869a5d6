"""Which task has printed what: marks in a worker's streams, and out of them again."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random

import pytest

from zray.runtime.linux.prints import Marks, Piece, mark

A, B = bytes(range(16)), b"\xff" * 16


def merged(pieces: list[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for task_id, data in pieces:
        if found and found[-1][0] == task_id:
            found[-1] = (task_id, found[-1][1] + data)
        else:
            found.append((task_id, data))
    return found


STREAM = b"before" + mark(A) + b"of a\n" + mark(b"") + b"of none" + mark(B) + b"\x1e of b \x1ezray"
PIECES = [(b"", b"before"), (A, b"of a\n"), (b"", b"of none"), (B, b"\x1e of b \x1ezray")]


def test_what_was_printed_is_told_apart() -> None:
    marks = Marks()
    assert merged(marks.split(STREAM, ended=True)) == PIECES


@pytest.mark.parametrize("seed", range(40))
def test_marks_are_found_wherever_the_stream_is_cut(seed: int) -> None:
    random, marks = Random(seed), Marks()
    found: list[Piece] = []
    place = 0
    while place < len(STREAM):
        size = random.randint(1, 12)
        found += marks.split(STREAM[place : place + size], ended=False)
        place += size
    found += marks.split(b"", ended=True)
    assert merged(found) == PIECES


def test_what_only_looks_like_a_mark_is_text() -> None:
    for text in (
        *(b"\x1e", b"\x1ezray-task ", b"\x1ezray-task zz\x1e", b"\x1ezray-task " + b"0" * 31),
        *(b"\x1ezray-task " + b"0" * 33 + b"\x1e", b"\x1e" * 1000),
    ):
        marks = Marks()
        found = marks.split(text, ended=False) + marks.split(b"", ended=True)
        assert b"".join(data for _, data in found) == text


def test_nothing_is_kept_back_for_long() -> None:
    marks = Marks()
    marks.split(b"\x1ezray-task " * 100_000, ended=False)
    assert len(marks._rest) < 50


PRINTER = """
import os, sys
from zray.runtime.linux import prints
task = b""
prints.ask_whose(lambda: task)
out = prints.text_stream(1)
print("none", file=out)
task = b"a" * 16
print("first", file=out)
print("second", file=out)
task = b"b" * 16
fd = os.dup(1)
os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1)
print("into a file", file=out)
os.dup2(fd, 1)
"""


def test_a_stream_marks_only_what_it_has_inherited(tmp_path: object) -> None:
    """A task may put a file in the place of its output: nothing is added to that."""
    path = f"{tmp_path}/file"
    done = subprocess.run([sys.executable, "-c", PRINTER, path], stdout=subprocess.PIPE, timeout=20)
    pieces = merged(Marks().split(done.stdout, ended=True))
    assert pieces == [(b"", b"none\n"), (b"a" * 16, b"first\nsecond\n")]
    with open(path, "rb") as file:
        assert file.read() == b"into a file\n"
    os.unlink(path)
