"""zray.util.logs: Ray's ``list_logs`` and ``get_log``, from a program that is connected."""

from __future__ import annotations

import os
from typing import Any

import pytest

import zray
from zray.errors import NotFoundError
from zray.util.logs import get_log, list_logs

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def says(number: int) -> int:
    print("number", number)
    return os.getpid()


@zray.remote(num_cpus=0)
class Echo:
    def say(self, *texts: str) -> int:
        print(*texts, sep="\n")
        return os.getpid()


def text(**whose: Any) -> str:
    return "".join(get_log(**whose))


def test_what_a_task_an_actor_and_a_process_have_printed() -> None:
    refs = [says.remote(number) for number in range(20)]
    zray.get(refs)
    assert text(task_id=refs[7].hex()) == "number 7\n"
    echo = Echo.remote()
    pid = zray.get(echo.say.remote("one", "two", "three"))
    actor_id = echo._actor_id.hex()
    assert text(actor_id=actor_id).endswith("one\ntwo\nthree\n")
    assert text(pid=pid, tail=1) == "three\n"
    assert text(pid=pid, tail=0) == ""


def test_the_files_of_a_node() -> None:
    pid = zray.get(says.remote(1))
    node_id = zray.nodes()[0]["NodeID"]
    names = list_logs(node_id=node_id)["worker_out"]
    assert list_logs(node_ip=zray.nodes()[0]["NodeManagerAddress"])["worker_out"] == names
    assert list_logs(node_id=node_id, glob_filter="nothing-*") == {}
    found = {name: text(node_id=node_id, filename=name) for name in names}
    assert text(pid=pid) in found.values()
    with pytest.raises(NotFoundError):
        text(node_id=node_id, filename="../../cluster.key")


def test_following_ends_when_it_is_closed() -> None:
    echo = Echo.remote()
    zray.get(echo.say.remote("first"))
    lines = get_log(actor_id=echo._actor_id.hex(), follow=True)
    assert next(lines).endswith("first\n")
    zray.get(echo.say.remote("second"))
    assert next(lines) == "second\n"
    lines.close()  # type: ignore[attr-defined]


def test_it_has_to_be_said_whose_log() -> None:
    for whose in ({}, {"pid": 1, "actor_id": "ab"}, {"filename": "x"}, {"pid": 1, "suffix": "in"}):
        with pytest.raises(ValueError):
            get_log(**whose)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        list_logs()
    for whose in ({"pid": 2**30}, {"actor_id": "ff" * 16}, {"task_id": "nonsense"}):
        with pytest.raises(NotFoundError):
            text(**whose)


def test_bytes_that_are_no_text() -> None:
    @zray.remote(num_cpus=0)
    class Raw:
        def say(self) -> None:
            os.write(1, b"caf\xe9\n")

    raw = Raw.remote()
    zray.get(raw.say.remote())
    actor_id = raw._actor_id.hex()
    with pytest.raises(UnicodeDecodeError):
        text(actor_id=actor_id)
    assert text(actor_id=actor_id, tail=1, errors="replace") == "caf\ufffd\n"
    assert text(actor_id=actor_id, tail=1, encoding="latin-1") == "caf\xe9\n"
