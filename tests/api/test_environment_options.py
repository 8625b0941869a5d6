"""What a ``runtime_env`` may say, without a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from zray import limits
from zray.api.environments import environment_of
from zray.api.job_options import JobConfig, chosen
from zray.api.runtime_env import NOTHING, Installed, RuntimeEnv, declared
from zray.protocol import messages as m


def test_nothing_is_nothing() -> None:
    for value in ({}, {"env_vars": None, "pip": None}, {"env_vars": {}}, {"working_dir": ""}):
        assert declared("runtime_env", value) == NOTHING
        assert not declared("runtime_env", value).builds()


def test_requirements_come_as_a_list_a_file_or_a_dict(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("# why\nemoji==2\n\n  numpy<3  \n--pre\n")
    found = declared("runtime_env", {"pip": str(path)}).installed
    assert found == Installed("pip", ("emoji==2", "numpy<3", "--pre"))
    fields = {
        "packages": ["a"],
        "uv_check": True,
        "uv_version": "==1",
        "uv_pip_install_options": [],
    }
    assert declared("runtime_env", {"uv": fields}).installed == Installed(
        "uv", ("a",), (), "==1", True
    )


def test_paths_are_made_absolute_when_they_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    found = declared("runtime_env", {"working_dir": "here", "py_modules": [Path("here")]})
    assert found.working_dir == str(tmp_path / "here") and found.py_modules == (found.working_dir,)
    assert declared("runtime_env", {"py_modules": [pytest]}).py_modules[0].endswith("pytest")


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (3, TypeError, "must be a dict"),
        ({"conda": "base"}, ValueError, "does not have 'conda'"),
        ({"image_uri": "x"}, ValueError, "start the nodes in that container"),
        ({"wokring_dir": "."}, ValueError, "there is no field 'wokring_dir'"),
        ({"pip": ["a"], "py_executable": "python"}, ValueError, "'pip' and 'py_executable'"),
        ({"working_dir": "https://host/x.zip"}, ValueError, "fetched from nowhere"),
        ({"working_dir": "file:///x.tar"}, ValueError, "must name a .zip file"),
        ({"py_modules": "/tmp"}, TypeError, "must be a list"),
        ({"config": 3}, TypeError, "must be of type dict or RuntimeEnvConfig"),
        ({"config": {"setup_timeout_seconds": "long"}}, TypeError, "must be of type int"),
        ({"pip": 3}, TypeError, "must be of type str or List"),
        ({"pip": "/no/such/requirements.txt"}, ValueError, "is not a valid file"),
        ({"working_dir": "/etc/hostname"}, ValueError, "neither a folder nor a zip file"),
        ({"working_dir": "x\udce9"}, ValueError, "UTF-8"),
        ({"py_modules": [ModuleType("made_up")]}, ValueError, "lies in 1 folders or in no file"),
        ({"excludes": "*.log"}, TypeError, "must be a list of strings"),
        ({"pip": {"packages": [], "check": True}}, ValueError, "there is no 'check'"),
        ({"pip": [3]}, TypeError, "must be a list of strings"),
        ({"pip": ["x"] * (limits.REQUIREMENTS_MAX + 1)}, ValueError, "more than 2000"),
        ({"uv": ["x" * 60_000] * 20}, ValueError, "more than 1048576 characters"),
        ({"py_executable": ["python"]}, TypeError, "must be a string"),
        ({"worker_process_setup_hook": "name"}, ValueError, "of the form module.function"),
        ({"worker_process_setup_hook": Unhashable()}, TypeError, "must be hashable"),
        ({"config": {"timeout": 3}}, TypeError, "unexpected keyword"),
    ],
)
def test_what_cannot_be_is_said_at_once(value: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        declared("runtime_env", value)


def participant(environment: m.Environment | None = None) -> Any:
    return SimpleNamespace(environment=environment, packages={})


def test_variables_of_the_job_count_for_a_tasks_pip() -> None:
    job = m.Environment([("PIP_INDEX_URL", "http://mine"), ("OTHER", "1"), ("UV_X", "2")])
    wanted = declared("runtime_env", {"pip": ["a"], "env_vars": {"PIP_PRE": "1"}})
    found = environment_of(participant(job), wanted)
    assert found is not None and len(found.env_vars) == 4
    assert found.parts[0].variables == [("PIP_INDEX_URL", "http://mine"), ("PIP_PRE", "1")]


def test_a_hook_that_is_too_large_is_refused() -> None:
    data = os.urandom(limits.SETUP_HOOK_BYTES_MAX)

    def hook() -> int:
        return len(data)

    wanted = declared("runtime_env", {"worker_process_setup_hook": hook})
    with pytest.raises(ValueError, match="let it import what it needs"):
        environment_of(participant(), wanted)


def test_a_package_is_kept_once_however_often_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    kept: list[bytes] = []

    def keep_bytes(data: Any) -> bytes:
        kept.append(bytes(data))
        return len(kept).to_bytes(20, "big")

    me = participant()
    me.keep_bytes = keep_bytes
    wanted = declared("runtime_env", {"working_dir": str(tmp_path)})
    first, second = environment_of(me, wanted), environment_of(me, wanted)
    assert first == second and len(kept) == 1
    assert first is not None and first.parts[0].source.endswith(".zip")
    again = declared("runtime_env", {"working_dir": first.parts[0].source})
    assert environment_of(participant(), again) == first
    with pytest.raises(ValueError, match="not the URI of a package"):
        environment_of(me, declared("runtime_env", {"working_dir": "zray://x.zip"}))


def test_a_job_config_counts_where_init_says_nothing() -> None:
    config = JobConfig(runtime_env={"env_vars": {"A": "1"}}, ray_namespace="mine")
    wanted, namespace = chosen(config, None, None)
    assert (wanted.env_vars, namespace) == ((("A", "1"),), "mine")
    wanted, namespace = chosen(config, {"env_vars": {"B": "2"}}, "other")
    assert (wanted.env_vars, namespace) == ((("B", "2"),), "other")
    assert chosen(None, None, None) == (NOTHING, None)
    with pytest.raises(TypeError, match="must be a JobConfig"):
        chosen({"runtime_env": {}}, None, None)
    with pytest.raises(ValueError, match="are for Java"):
        JobConfig(code_search_path=["/x.jar"])
    with pytest.raises(ValueError, match="non_detached"):
        JobConfig(default_actor_lifetime="detached")


def test_an_environment_object_is_checked() -> None:
    with pytest.raises(ValueError, match="does not have"):
        RuntimeEnv(conda="x")
    assert RuntimeEnv(env_vars={"A": "1"}, pip=None).to_dict() == {"env_vars": {"A": "1"}}
