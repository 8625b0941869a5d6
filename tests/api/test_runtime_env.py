"""Runtime environments on real processes: what is installed, by whom, and what is said of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import zray
from tests.api.conftest import eventually
from zray.errors import RuntimeEnvSetupError, WorkerCrashedError
from zray.util.state import list_runtime_envs

pytestmark = pytest.mark.usefixtures("cluster")

Wheel = Callable[..., Path]
GET_S = 60.0


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    """Makes a wheel with one module, which has VALUE, below ``tmp_path``; where it is."""

    def make(name: str, value: int, version: str = "1", requires: str = "") -> Path:
        path = tmp_path / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        members = {
            f"{name}.py": f"VALUE = {value}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        members[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*members, f"{info}/RECORD"])
        with zipfile.ZipFile(path, "w") as archive:
            for one, text in members.items():
                archive.writestr(one, text)
        return path

    return make


def offline(folder: Path, **field: Any) -> dict[str, Any]:
    """An environment whose installer finds packages in a folder alone."""
    names = {
        f"{tool}_{name}": value
        for tool in ("PIP", "UV")
        for name, value in (
            ("NO_INDEX", "1"),
            ("FIND_LINKS", str(folder)),
            ("CONFIG_FILE", os.devnull),
        )
    }
    del names["UV_CONFIG_FILE"]
    return {**field, "env_vars": names}


@zray.task
def value(name: str) -> Any:
    import importlib

    return importlib.import_module(name).VALUE


@zray.task
def about() -> dict[str, Any]:
    import shutil

    return {
        "pid": os.getpid(),
        "zygote": os.getppid(),
        "python": sys.executable,
        "first": shutil.which("python"),
        "venv": os.environ.get("VIRTUAL_ENV"),
        "child": subprocess.check_output([sys.executable, "-c", "import sys; print(sys.prefix)"]),
    }


# ---- pip and uv --------------------------------------------------------------------------------


def test_pip_installs_for_one_environment_alone(tmp_path: Path, wheel: Wheel) -> None:
    wheel("zray_of_pip", 3, requires="msgspec")  # which the node has already
    env = offline(tmp_path, pip=["zray_of_pip"])
    assert zray.get(value.options(runtime_env=env).remote("zray_of_pip"), timeout=GET_S) == 3
    found = zray.get(about.options(runtime_env=env).remote(), timeout=GET_S)
    assert found["python"].startswith(found["venv"]) and found["first"] == found["python"]
    assert found["child"].decode().strip() == found["venv"]
    with pytest.raises(ModuleNotFoundError):
        zray.get(value.remote("zray_of_pip"), timeout=GET_S)

    # Another worker of it comes from the same zygote, which is not the node's own.
    again = about.options(runtime_env=env, num_cpus=2)
    second = zray.get(again.remote(), timeout=GET_S)
    plain = zray.get(about.remote(), timeout=GET_S)
    assert second["pid"] != found["pid"] and second["zygote"] == found["zygote"]
    assert plain["zygote"] != found["zygote"] and plain["python"] != found["python"]


def test_an_actor_has_what_pip_has_installed_and_so_have_its_tasks(
    tmp_path: Path, wheel: Wheel
) -> None:
    wheel("zray_of_actor", 4)

    @zray.actor(runtime_env=offline(tmp_path, pip={"packages": ["zray_of_actor"]}))
    class Holder:
        def value(self) -> Any:
            import zray_of_actor  # type: ignore[import-not-found]

            return zray_of_actor.VALUE, zray.get(value.remote("zray_of_actor"))

    assert zray.get(Holder.remote().value.remote(), timeout=GET_S) == (4, 4)


def test_a_requirements_file_and_options_of_pip(tmp_path: Path, wheel: Wheel) -> None:
    wheel("zray_of_file", 1, version="1")
    wheel("zray_of_file", 2, version="2")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# the older one\nzray_of_file<2\n\n")
    env = offline(tmp_path, pip=str(requirements))
    assert zray.get(value.options(runtime_env=env).remote("zray_of_file"), timeout=GET_S) == 1
    chosen = {"packages": ["zray_of_file"], "pip_install_options": ["--no-deps"]}
    env = offline(tmp_path, pip=chosen)
    assert zray.get(value.options(runtime_env=env).remote("zray_of_file"), timeout=GET_S) == 2


def test_uv_installs_as_pip_does(tmp_path: Path, wheel: Wheel) -> None:
    wheel("zray_of_uv", 5)
    env = offline(tmp_path, uv={"packages": ["zray_of_uv"], "uv_check": True})
    assert zray.get(value.options(runtime_env=env).remote("zray_of_uv"), timeout=GET_S) == 5


def test_packages_that_do_not_fit_fail_where_that_is_to_be_checked(
    tmp_path: Path, wheel: Wheel
) -> None:
    wheel("zray_misfit", 1, requires="no-such-package-of-zray")
    chosen = {
        "packages": ["zray_misfit"],
        "pip_check": True,
        "pip_install_options": ["--no-deps"],
    }
    task = value.options(runtime_env=offline(tmp_path, pip=chosen))
    with pytest.raises(RuntimeEnvSetupError, match="no-such-package-of-zray"):
        zray.get(task.remote("zray_misfit"), timeout=GET_S)


def test_what_pip_said_last_is_in_the_error_of_all_that_wait(tmp_path: Path) -> None:
    task = value.options(runtime_env=offline(tmp_path, pip=["no-such-package-of-zray==9"]))
    refs = [task.remote("x") for _ in range(20)]
    plain = zray.get(about.remote(), timeout=GET_S)  # nothing is held up
    assert plain["venv"] == os.environ.get("VIRTUAL_ENV")
    for ref in refs:
        with pytest.raises(RuntimeEnvSetupError) as caught:
            zray.get(ref, timeout=GET_S)
        assert "No matching distribution found for no-such-package-of-zray==9" in str(caught.value)
        assert "pip install no-such-package-of-zray==9 could not be built" in str(caught.value)


def test_a_driver_sees_how_far_pip_is(run: Any, tmp_path: Path, wheel: Wheel) -> None:
    wheel("zray_seen", 6)
    env = offline(tmp_path, pip=["zray_seen"])
    done = run(
        f"""
        zray.init("local", num_cpus=1, runtime_env={env!r})

        @zray.task
        def f():
            import zray_seen
            return zray_seen.VALUE

        print(zray.get(f.remote(), timeout=60))
        """
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert "6" in lines
    told = [line for line in lines if line.startswith("(runtime_env pid=")]
    assert any("pip install zray_seen begins on node" in line for line in told)
    assert any("Successfully installed zray_seen-1" in line for line in told)
    assert any("pip install zray_seen took" in line for line in told)


# ---- a build that takes long -----------------------------------------------------------------


@pytest.fixture
def silent_index() -> Iterator[str]:
    """The address of an index of packages that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


def builders() -> list[psutil.Process]:
    """Processes that build, or that these have started."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or ()
        if any("zray.runtime.environments" in part for part in line):
            with contextlib.suppress(psutil.Error):  # it has just ended
                found += [process, *process.children(recursive=True)]
    return found


def test_a_task_that_waits_says_so_holds_nothing_and_fails_in_time(silent_index: str) -> None:
    env = {
        "pip": ["anything"],
        "env_vars": {"PIP_INDEX_URL": silent_index, "PIP_CONFIG_FILE": os.devnull},
        "config": {"setup_timeout_seconds": 4},
    }
    waiting = value.options(runtime_env=env, num_cpus=2).remote("anything")
    eventually(builders)

    def is_said() -> bool:
        return "pip install anything is being built on node" in str(zray.why(waiting))

    eventually(is_said, 3.0)
    assert zray.get(about.options(num_cpus=2).remote(), timeout=3.5)  # all CPUs are free
    with pytest.raises(RuntimeEnvSetupError, match="took longer than 4 s"):
        zray.get(waiting, timeout=GET_S)
    eventually(lambda: not builders(), 5.0)


# ---- interpreters ----------------------------------------------------------------------------


def test_another_interpreter_that_has_no_zray_runs_tasks(tmp_path: Path) -> None:
    venv.create(tmp_path / "other", symlinks=True, with_pip=False)
    python = str(tmp_path / "other" / "bin" / "python")
    found = zray.get(about.options(runtime_env={"py_executable": python}).remote(), timeout=GET_S)
    assert found["python"] == python
    assert found["child"].decode().strip() == str(tmp_path / "other")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/no/such/python", "cannot be started"),
        ("/bin/echo", "does not run Python"),
        ("/bin/false", "failed"),
        (" ", "names no program"),
        ("sh -c yes", "does not run Python"),
        ("sh -c 'echo [[3,11],1,2,3,4]'", "does not run Python"),
    ],
)
def test_what_is_no_interpreter_fails_the_task(command: str, said: str) -> None:
    task = about.options(runtime_env={"py_executable": command})
    with pytest.raises(RuntimeEnvSetupError, match=said):
        zray.get(task.remote(), timeout=GET_S)


def test_what_a_task_removes_is_built_again(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "a.txt").touch()

    @zray.task(max_retries=0)
    def remove(folder: str) -> None:
        shutil.rmtree(os.path.abspath(folder))
        os.kill(os.getpid(), signal.SIGKILL)

    @zray.task(max_calls=1)
    def look() -> tuple[list[str], str]:
        return os.listdir("."), sys.prefix

    options: dict[str, Any] = {"working_dir": str(tmp_path / "top"), "pip": []}
    _, prefix = zray.get(look.options(runtime_env=options).remote(), timeout=GET_S)
    for folder in (".", prefix):
        with pytest.raises(WorkerCrashedError):
            zray.get(remove.options(runtime_env=options).remote(folder), timeout=GET_S)
        for _ in range(8):  # workers that are there already end with their first task
            many = [look.options(runtime_env=options).remote() for _ in range(4)]
            found = zray.get(many, timeout=GET_S)
        assert found == [(["a.txt"], prefix)] * 4


# ---- files -----------------------------------------------------------------------------------


def test_folders_of_single_tasks_are_sent_once(tmp_path: Path, wheel: Wheel) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("the same")

    @zray.task
    def place() -> tuple[str, list[str]]:
        return os.getcwd(), os.listdir(".")

    options = [{"working_dir": str(tmp_path / name)} for name in ("one", "two")]
    found = zray.get([place.options(runtime_env=one).remote() for one in options], timeout=GET_S)
    assert found[0] == found[1] and found[0][1] == ["a.txt"]
    (tmp_path / "one" / "b.txt").touch()
    third = zray.get(place.options(runtime_env=dict(options[0])).remote(), timeout=GET_S)
    assert third[0] == found[0][0]  # as it was when these options were first used
    path = wheel("zray_of_wheel", 8)
    modules = {"py_modules": [path]}
    task = value.options(runtime_env=modules)
    assert zray.get(task.remote("zray_of_wheel"), timeout=GET_S) == 8


def test_a_zip_file_that_has_changed_is_unpacked_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"

    def write(number: int) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("changing.py", f"VALUE = {number}")
            archive.writestr(f"{number}", "")

    found = []
    for number in (1, 2):
        write(number)
        task = value.options(runtime_env={"working_dir": f"file://{path}"}, name=f"t{number}")
        found.append(zray.get(task.remote("changing"), timeout=GET_S))
    assert found == [1, 2]


def test_a_hook_that_fails_is_told_to_all_that_would_run_there() -> None:
    def hook() -> None:
        raise LookupError("no licence left")

    task = about.options(runtime_env={"worker_process_setup_hook": hook})
    for _ in range(2):
        with pytest.raises(RuntimeEnvSetupError, match="LookupError: no licence left"):
            zray.get(task.remote(), timeout=GET_S)

    @zray.actor(runtime_env={"worker_process_setup_hook": "no_such_module.function"})
    class Actor:
        def f(self) -> None: ...

    with pytest.raises(RuntimeEnvSetupError, match="no_such_module"):
        zray.get(Actor.remote().f.remote(), timeout=GET_S)


# ---- what there is ---------------------------------------------------------------------------


def test_environments_are_listed_with_what_has_become_of_them(tmp_path: Path) -> None:
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / "listed.txt").write_text("x" * 1000)
    good = {"working_dir": str(tmp_path / "listed"), "env_vars": {"LISTED": "yes"}}
    zray.get(about.options(runtime_env=good).remote(), timeout=GET_S)
    with pytest.raises(RuntimeEnvSetupError):
        zray.get(about.options(runtime_env={"py_executable": "/bin/false"}).remote(), timeout=GET_S)
    found = list_runtime_envs()
    rows = {row.state: row for row in reversed(found)}
    listed = {"LISTED": "yes"}
    ready = next(row for row in found if row.runtime_env.get("env_vars") == listed)
    assert ready.success is True and ready.size_bytes == 1000 and ready.creation_time_ms > 0
    assert rows["FAILED"].success is False and "/bin/false" in rows["FAILED"].error
    failed = list_runtime_envs(filters=[("state", "=", "FAILED")])
    assert failed and all(row.state == "FAILED" for row in failed)

    line = [sys.executable, "-m", "zray", "envs"]
    env = {**os.environ, "ZRAY_ADDRESS": zray.get_runtime_context().gcs_address}
    shown = json.loads(subprocess.check_output([*line, "--json"], env=env))
    assert {row["state"] for row in shown["environments"]} >= {"READY", "FAILED"}
    assert shown["nodes"][0]["used_bytes"] >= 1000 and shown["silent"] == []
    text = subprocess.check_output(line, env=env, text=True)
    assert "READY" in text and "LISTED" in text and "are used" in text
