"""Why did it die: the one input of a thousand that fails is found, run again, and its fix seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import sys
import zray
from counting import words

zray.init(sys.argv[1])
count = zray.remote(max_retries=0)(words)
lines = ["to be or not to be"] * 1000
lines[617] = "to be or \\x1b[31mnot\\x1b[0m \\udcff"
refs = [count.remote(number, line) for number, line in enumerate(lines)]
failed = 0
for ref in refs:
    try:
        zray.get(ref)
    except UnicodeError:
        failed += 1
print("failed", failed)
"""
MODULE = """
def words(number, line):
    text = line.encode()
    return len(text.split())
"""
FIXED = MODULE.replace("line.encode()", "line.encode(errors='replace')")


def run(commands: Any, *options: object, answers: str = "", code: int = 0) -> str:
    """``zray replay`` with somebody at the keyboard."""
    line = commands.line("zray", "replay", *options)
    done = subprocess.run(line, input=answers, capture_output=True, text=True, timeout=40)
    assert done.returncode == code, done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_why_did_it_die(commands: Any, tmp_path: Path) -> None:
    address = commands.head().address()
    (tmp_path / "counting.py").write_text(MODULE)
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), address],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "failed 1" in done.stdout, done.stdout + done.stderr

    # Its program has ended. What failed?
    listed = commands.run("zray", "list", "tasks", "--filter", "state=FAILED", "--json").stdout
    (row,) = json.loads(listed)["rows"]
    task = row["task_id"]
    (kept,) = json.loads(run(commands, "--list", "--json"))["attempts"]
    assert kept["task_id"] == task and kept["name"] == "words"
    assert task in run(commands, "--list")

    # It fails here as it did there, with that input.
    said = run(commands, task, code=1)
    assert "UnicodeEncodeError" in said.partition("---- now")[0]
    assert "UnicodeEncodeError" in said.partition("---- now")[2]
    assert "It raises the same as then." in said and "617" in said

    # The debugger shows where, and stops at the first line if asked.
    said = run(commands, task, "--pdb", answers="p number\np line[-1]\nq\n", code=1)
    assert "(Pdb) 617" in said and "udcff" in said
    said = run(commands, task, "--break", answers="n\np number\nq\n", code=1)
    assert "(Pdb) 617" in said and "The debugger was left" in said

    # On another machine, without the cluster.
    path = tmp_path / "failed.run"
    run(commands, task, "--dump", path)
    found = json.loads(run(commands, path, "--json", code=1))
    assert found["same"] and found["now"]["type"] == "UnicodeEncodeError"
    assert found["then"]["type"] == "UnicodeEncodeError" and found["task_id"] == task

    # With the fix it does not fail any more: in another file, and in place.
    (tmp_path / "fixed.py").write_text(FIXED)
    said = run(commands, task, "--with", f"{tmp_path}/fixed.py:words")
    assert "It does not raise now." in said and "returns 5" in said
    (tmp_path / "counting.py").write_text(FIXED)
    found = json.loads(run(commands, task, "--json"))
    assert found["now"] is None and found["returned"] == "5"


ODD = """
import sys
import zray

zray.init(sys.argv[1])

@zray.remote(max_retries=0)
def odd():
    raise ValueError("\\x1b[2J \\ud800 \\u202e<b>")

@zray.remote(max_retries=0)
def long():
    raise ValueError("x" * 1_000_000)

@zray.remote(max_retries=0)
def leaves():
    sys.exit("bye")

class Argument:
    def __repr__(self):
        sys.exit(5)

@zray.remote(max_retries=0)
def shy(argument):
    raise ValueError

for ref in (odd.remote(), long.remote(), leaves.remote(), shy.remote(Argument())):
    try:
        zray.get(ref)
    except zray.errors.TaskError:
        pass
"""


def test_errors_with_odd_long_or_no_text_are_known_again_and_shown(
    commands: Any, tmp_path: Path
) -> None:
    address = commands.head().address()
    (tmp_path / "program.py").write_text(ODD)
    subprocess.run([sys.executable, str(tmp_path / "program.py"), address], timeout=60, check=True)
    kept = json.loads(run(commands, "--list", "--json"))["attempts"]
    assert {one["name"] for one in kept} == {"odd", "long", "leaves", "shy"}
    for one in kept:
        said = run(commands, one["task_id"], code=1)
        assert said.endswith("\nIt raises the same as then.\n")
        if one["name"] == "odd":
            assert "ValueError: \\x1b[2J \\ud800 \\u202e<b>" in said.partition("---- now")[2]


def test_what_cannot_be_replayed_is_said_with_a_code(commands: Any, tmp_path: Path) -> None:
    commands.head()
    said = run(commands, "ab" * 16, code=2)
    assert said.startswith("zray: ZR-5121 no node keeps a failed attempt of task abab")
    error = json.loads(run(commands, "ab" * 16, "--json", code=2))["error"]
    assert error["code"] == "ZR-5121"
    assert "is no task's id" in run(commands, "evil\x1b[2J", code=2)
    assert "keeps 0 failed attempts, 0 bytes" in run(commands, "--list")
    (tmp_path / "other").write_bytes(b"nonsense")
    assert "ZR-5120 the file was not written by zray replay" in run(
        commands, tmp_path / "other", code=2
    )
    assert "give a TASK or a FILE, or --list" in run(commands, code=2)
    assert "only one of --pdb" in run(commands, "ab" * 16, "--pdb", "--break", code=2)


HANGS = """
import sys, threading, time
import zray

zray.init(sys.argv[1])

@zray.task(timeout=0.5)
def hangs(number):
    while number:
        time.sleep(0.01)

@zray.task
def returns_a_lock():
    return threading.Lock()

for ref in hangs.remote(7), returns_a_lock.remote():
    try:
        zray.get(ref)
    except Exception:
        print(ref.hex()[:32])
"""


def test_where_does_it_hang_and_why_can_it_not_be_returned(commands: Any, tmp_path: Path) -> None:
    address = commands.head().address()
    program = tmp_path / "program.py"
    program.write_text(HANGS)
    line = [sys.executable, str(program), address]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    hangs, lock = done.stdout.split()
    said = run(commands, hangs, "--pdb", answers="p number\nq\n", code=1)
    assert "(Pdb) 7" in said and "It raises the same as then." in said
    assert "hangs ran longer than its timeout of 0.5 s, and was interrupted" in said
    said = run(commands, lock, code=1)
    assert "It raises the same as then." in said
    assert "_thread.lock" in said.partition("---- now")[2]
