"""Head, node and dashboard never unpickle: here it would be an error that is written down."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest

import zray
from zray.runtime.web_keys import WebKeys

POISON = """
import os, pickle, sys, traceback

DAEMONS = {"zray.cli.head", "zray.cli.worker", "zray.nodes.raylet.own_main", "zray.dashboard"}
FOLDER = os.path.dirname(os.path.abspath(__file__))

def write(name, text):
    with open(os.path.join(FOLDER, name), "a") as file:
        file.write(text)

def refuse(*args, **kwargs):
    write("unpickled", "".join(traceback.format_stack()) + "----\\n")
    raise RuntimeError("a daemon unpickles")

class Unpickler:
    __init__ = refuse

daemon = DAEMONS.intersection(sys.orig_argv)
if daemon:
    import _pickle
    for module in (pickle, _pickle):
        module.load = module.loads = refuse
        module.Unpickler = Unpickler
    pickle._Unpickler = pickle._loads = pickle._load = refuse
    write("armed", "".join(daemon) + "\\n")
"""


PATHS = [f"/api/v1/{kind}" for kind in ("cluster", "tasks", "objects", "timeline", "stack/head")]


class OwnError(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


def test_no_daemon_unpickles(bare: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    bare.start_head()
    bare.start_node("one", wait=False)
    bare.start_node("two", wait=False)
    bare.await_node("one")
    bare.await_node("two")
    monkeypatch.undo()
    armed = (tmp_path / "armed").read_text().split()
    nodes = ["zray.cli.worker", "zray.cli.worker", "zray.nodes.raylet.own_main"]
    assert sorted(armed) == ["zray.cli.head", *nodes]
    bare.connect()
    offset = 3

    @zray.task
    def add(left: Any, right: int) -> int:
        return len(left) + right + offset

    @zray.task
    def nested(refs: list[Any]) -> list[Any]:
        print("a line of output")
        return [zray.put(b"inner"), *zray.get(refs)]

    @zray.task(max_retries=1)
    def fail(how: str) -> None:
        if how == "crash":
            import os

            os._exit(3)
        raise OwnError(1, 2)

    stored = zray.put(b"x" * 1_000_000)
    sums = [add.remote(stored, 1), add.remote([2], right=2)]
    inner, *found = zray.get(nested.remote(sums), timeout=20)
    assert found == [1_000_004, 6]
    assert zray.get(inner, timeout=20) == b"inner"
    with pytest.raises(zray.errors.TaskError):
        zray.get(fail.remote("raise"), timeout=20)
    with pytest.raises(zray.errors.WorkerCrashedError):
        zray.get(fail.remote("crash"), timeout=20)
    with pytest.raises(zray.errors.GetTimeoutError):
        zray.get(add.options(num_cpus=99).remote([1], 1), timeout=0.2)
    assert len(zray.nodes()) == 3
    for path in PATHS:
        request = urllib.request.Request(bare.info().dashboard + path)
        request.add_header("Authorization", f"Bearer {WebKeys.of(bare.info()).token}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200
    assert (tmp_path / "armed").read_text().split()[-1] == "zray.dashboard"
    unpickled = tmp_path / "unpickled"
    assert not unpickled.exists(), unpickled.read_text()
