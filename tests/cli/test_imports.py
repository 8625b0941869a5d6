"""``--import``: what a daemon says at its start of modules that will not do, and where they are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

import zray
from zray.core.head.supervision import FINAL

ROOT = Path(__file__).parents[2]
OFFERS = "import zray\n@zray.task(name='answer')\ndef answer():\n    return 42\n"
TWICE = (
    "import zray\n"
    "@zray.task(name='twice')\ndef one():\n    pass\n"
    "@zray.task(name='twice')\ndef two():\n    pass\n"
)
MODULES = {
    "good_town": OFFERS,
    "bad_town": "import zray\nraise ValueError('no such river')\n",
    "split_town": "def town(:\n",
    "twice_town": TWICE,
    "mute_town": "print('noise')\n",
    "lost_town": "import sys\nsys.exit(3)\n",
    "dead_town": "import os\nos._exit(3)\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present directory: it has the modules, and daemons find zray from it."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(commands: Any, *words: object) -> subprocess.CompletedProcess[str]:
    """A daemon that ends by itself; it may show the traceback of a user's module."""
    return subprocess.run(
        commands.line(*words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("no_town", "No module named 'no_town'"),
        ("bad_town", "ValueError: no such river"),
        ("split_town", "SyntaxError"),
        ("twice_town", "'twice' is offered by twice_town.one and twice_town.two"),
        ("mute_town", "--import mute_town offers nothing by name"),
        ("lost_town", "SystemExit: 3"),
        ("dead_town", "ended with status 3"),
    ],
)
def test_a_module_that_will_not_do_is_told_at_the_start(
    commands: Any, folder: Path, module: str, words: str
) -> None:
    done = run(commands, "zray-head", "--port", 0, "--num-cpus", 1, "--import", module)
    assert done.returncode == FINAL
    assert "ZR-4005" in done.stderr and f"--import {module}" in done.stderr
    assert words in done.stderr
    assert "nodes/imports.py" not in done.stderr
    assert "READY" not in done.stdout


def test_a_worker_says_so_before_it_looks_for_a_head(commands: Any, folder: Path) -> None:
    done = run(
        commands,
        "zray-worker",
        "--address",
        "127.0.0.1:9",
        "--import",
        "good_town",
        "--import",
        "no_town",
    )
    assert done.returncode == 1
    assert "No module named 'no_town'" in done.stderr
    assert str(folder) in done.stderr


def test_a_detached_daemon_says_so_to_its_starter(commands: Any, folder: Path) -> None:
    done = run(commands, "zray-head", "--port", 0, "--import", "bad_town", "--detach")
    assert done.returncode == FINAL
    assert "no such river" in done.stderr


@pytest.mark.parametrize(
    ("module", "words"),
    [("good_town.py", "write good_town"), ("a-b", "'a-b' is not a module's name")],
)
def test_what_is_no_name_is_a_usage_error(commands: Any, module: str, words: str) -> None:
    done = commands.run("zray-worker", "--import", module, code=2)
    assert words in done.stderr


def test_a_detached_head_finds_modules_where_it_was_started(commands: Any, folder: Path) -> None:
    _, _, said = commands.detach("zray-head", "--port", 0, "--num-cpus", 1, "--import", "good_town")
    address = said.partition("READY at ")[2].partition(" ")[0]
    with zray.init(address):
        assert zray.get(zray.task_by_name("answer").remote(), timeout=20) == 42


def test_a_worker_offers_what_its_head_does_not_have(commands: Any, folder: Path) -> None:
    head = commands.head("--num-cpus", 0)
    worker = commands.worker("--address", head.address(), "--name", "one", "--import", "good_town")
    assert "offers answer\n" in worker.text()
    with zray.init(head.address()):
        assert zray.get(zray.task_by_name("answer").remote(), timeout=20) == 42
