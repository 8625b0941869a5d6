"""Runtime environments over several nodes, and deaths of all that takes part in them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import zray
from zray.errors import RuntimeEnvSetupError

GET_S = 40.0


@pytest.fixture
def silent_index() -> Iterator[str]:
    """The address of an index of packages that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


def endless(index: str) -> dict[str, Any]:
    """An environment that is never built."""
    return {"pip": ["x"], "env_vars": {"PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull}}


def building(node: Any) -> list[psutil.Process]:
    """What a node has started to build something."""
    found = []
    for one in node.below():
        with contextlib.suppress(psutil.Error):  # it has just ended
            found += [one] if "pip" in one.cmdline() else []
    return found


def folder(path: Path, size: int = 0) -> Path:
    path.mkdir()
    (path / "module_of_folder.py").write_text("VALUE = 7\n")
    if size:
        (path / "large.bin").write_bytes(os.urandom(size))
    return path


@zray.task
def look() -> tuple[str, int, list[str], str]:
    import module_of_folder  # type: ignore[import-not-found]

    name = str(zray.get_runtime_context().get_node_name())
    return name, module_of_folder.VALUE, sorted(os.listdir(".")), os.getcwd()


@pytest.mark.parametrize("size", [0, 20_000_000])
def test_a_folder_comes_to_every_node_and_is_there_once(
    sites: Any, tmp_path: Path, size: int
) -> None:
    env = {"working_dir": str(folder(tmp_path / "folder", size))}
    tasks = [look.options(runtime_env=env, resources={name: 0.1}) for name in ("one", "two")]
    found = zray.get([task.remote() for task in tasks for _ in range(20)], timeout=GET_S)
    places: dict[str, set[str]] = {}
    for name, value, names, place in found:
        assert value == 7 and "module_of_folder.py" in names
        places.setdefault(name, set()).add(place)
    assert {name: len(found) for name, found in places.items()} == {"one": 1, "two": 1}
    assert places["one"] != places["two"]


def test_a_driver_on_another_machine_sends_its_folder(apart: Any, tmp_path: Path) -> None:
    env = {"working_dir": str(folder(tmp_path / "folder", 1_000_000))}
    tasks = [look.options(runtime_env=env, resources={name: 1}) for name in ("one", "two")]
    found = zray.get([task.remote() for task in tasks], timeout=GET_S)
    assert [(name, value) for name, value, _, _ in found] == [("one", 7), ("two", 7)]


DETACHED = """
    import os, sys
    import zray

    zray.init(namespace="tests")

    @zray.actor(num_cpus=0, lifetime="detached", name="holder", max_restarts=-1)
    class Holder:
        def look(self):
            import module_of_folder
            return os.getpid(), module_of_folder.VALUE

    handle = Holder.options(runtime_env={"working_dir": sys.argv[1]}).remote()
    print("made", zray.get(handle.look.remote())[1], flush=True)
"""


def test_a_detached_actor_starts_again_when_who_sent_its_folder_has_gone(
    cluster: Any, tmp_path: Path
) -> None:
    driver = cluster.run("driver", DETACHED, str(folder(tmp_path / "folder", 200_000)))
    driver.says("made 7")
    assert driver.wait(GET_S) == 0
    zray.init(cluster.address, namespace="tests")
    handle: Any = zray.get_actor("holder")
    before, value = zray.get(handle.look.remote(), timeout=GET_S)
    os.kill(before, signal.SIGKILL)

    def again() -> tuple[int, int] | None:
        try:
            found = zray.get(handle.look.remote(), timeout=GET_S)
        except zray.errors.ActorUnavailableError:
            return None
        return found if found[0] != before else None

    assert cluster.until(again, GET_S, "it lives again")[1] == value == 7


def test_a_package_that_is_gone_is_said(connected: Any) -> None:
    uri = f"zray://{'a' * 32}-{'b' * 40}.zip"
    with pytest.raises(RuntimeEnvSetupError, match="the package is gone"):
        zray.get(look.options(runtime_env={"working_dir": uri}).remote(), timeout=GET_S)


# ---- deaths ----------------------------------------------------------------------------------


def test_a_builder_that_is_killed_fails_what_waits(connected: Any, silent_index: str) -> None:
    ref = look.options(runtime_env=endless(silent_index)).remote()
    nodes = [one for one in connected.programs if one.name in ("one", "two")]

    def busy() -> list[psutil.Process]:
        return [found for node in nodes for found in building(node)]

    pip = connected.until(busy, GET_S, "pip runs")[0]
    builder = pip.parent()
    assert builder is not None
    builder.kill()
    with pytest.raises(RuntimeEnvSetupError, match="could not be built"):
        zray.get(ref, timeout=GET_S)
    connected.until(lambda: not pip.is_running(), 5.0, "what it had started has ended")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_that_ends_leaves_no_build_behind(
    connected: Any, silent_index: str, number: int
) -> None:
    look.options(runtime_env=endless(silent_index)).remote()
    nodes = [one for one in connected.programs if one.name in ("one", "two")]
    busy: Callable[[], Any] = lambda: next((one for one in nodes if building(one)), None)  # noqa: E731
    node = connected.until(busy, GET_S, "pip runs")
    below = node.below()
    node.signal(number)
    connected.until(lambda: not any(one.is_running() for one in below), 10.0, "all has ended")


def test_a_small_folder_outlives_its_sender_and_the_head(cluster: Any, tmp_path: Path) -> None:
    """A node that has not had it makes the actor again, after both have gone."""
    source = DETACHED.replace("num_cpus=0", "num_cpus=1")  # not on the head's own node
    driver = cluster.run("driver", source, str(folder(tmp_path / "folder")))
    driver.says("made 7")
    assert driver.wait(GET_S) == 0
    cluster.head.kill()
    cluster.start_head(port=-1)
    zray.init(cluster.address, namespace="tests")
    handle: Any = zray.get_actor("holder")
    before, _ = zray.get(handle.look.remote(), timeout=GET_S)
    nodes = [one for one in cluster.programs if one.name in ("one", "two")]
    (node,) = [one for one in nodes if before in [process.pid for process in one.below()]]
    node.kill()

    def again() -> tuple[int, int] | None:
        try:
            found = zray.get(handle.look.remote(), timeout=GET_S)
        except zray.errors.ActorUnavailableError:
            return None
        return found if found[0] != before else None

    assert cluster.until(again, GET_S, "it lives again")[1] == 7


def test_tasks_wait_through_a_restart_of_the_head(
    connected: Any, silent_index: str, tmp_path: Path
) -> None:
    """What waits for its environment is still there, and others run."""
    ref = look.options(runtime_env=endless(silent_index)).remote()
    nodes = [one for one in connected.programs if one.name in ("one", "two")]
    connected.until(lambda: any(map(building, nodes)), GET_S, "pip runs")
    connected.head.kill()
    connected.start_head(port=-1)
    env = {"working_dir": str(folder(tmp_path / "folder"))}
    assert zray.get(look.options(runtime_env=env).remote(), timeout=GET_S)[1] == 7
    zray.cancel(ref)
    with pytest.raises(zray.errors.TaskCancelledError):
        zray.get(ref, timeout=GET_S)
