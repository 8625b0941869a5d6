"""What is shipped: one place for each setting, every package found, launchers that launch."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAUNCHERS = ["zray-head", "zray-worker"]


def test_setup_cfg_keeps_only_packages_and_their_data() -> None:
    """setuptools drops or overwrites, mostly in silence, what both files say."""
    cfg = configparser.ConfigParser()
    cfg.read(ROOT / "setup.cfg")
    assert set(cfg) <= {"DEFAULT", "options", "options.packages.find", "options.package_data"}
    assert set(cfg["options"]) == {"packages", "zip_safe"}


def test_the_version_has_one_source() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert (
        PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "zray._version.__version__"
    )


def test_every_folder_with_modules_is_a_package() -> None:
    """Without __init__.py package discovery leaves a folder out of the wheel, in silence."""
    folders = {path.parent for path in (ROOT / "zray").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]
    assert (ROOT / "zray" / "py.typed").exists()


def test_every_import_is_a_declared_dependency(tree: Any) -> None:
    names = {"pyzmq": "zmq", "prometheus-client": "prometheus_client"}
    names |= {"opentelemetry-api": "opentelemetry", "nvidia-ml-py": "pynvml"}
    declared = {
        names.get(name, name)
        for requirement in (
            *PROJECT["project"]["dependencies"],
            *(
                requirement
                for extra in ("amd", "collective", "dask", "etcd", "joblib", "otel")
                for requirement in PROJECT["project"]["optional-dependencies"][extra]
            ),
        )
        for name in [requirement.partition(">")[0]]
    }
    imported = {
        item.name.partition(".")[0] for module in tree.modules.values() for item in module.imports
    }
    assert imported - sys.stdlib_module_names - {"zray"} <= declared


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_are_small_and_executable(name: str) -> None:
    path = ROOT / "bin" / name
    assert os.access(path, os.X_OK)
    assert len(path.read_text().splitlines()) <= 15


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_run_from_any_folder(name: str, tmp_path: Path) -> None:
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    shown = subprocess.run(
        [sys.executable, ROOT / "bin" / name, "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert shown.returncode == 0, shown.stderr
    assert name in shown.stdout


@pytest.mark.parametrize("script", PROJECT["project"]["scripts"].items(), ids=lambda s: s[0])
def test_console_scripts_name_a_function(script: tuple[str, str], tree: Any) -> None:
    module, _, function = script[1].partition(":")
    source = tree.modules[module]
    defined = {getattr(node, "name", None) for node in source.tree.body}
    assert function in defined


def test_a_driver_imports_where_nothing_is_linux() -> None:
    """A stand-in for macOS: what only Linux has is taken away before zray is imported."""
    shown = subprocess.run(
        [sys.executable, "-c", WITHOUT_LINUX], capture_output=True, text=True, timeout=20, cwd=ROOT
    )
    assert shown.returncode == 0, shown.stderr


WITHOUT_LINUX = """
import asyncio, os, select, signal, socket, sys
import cloudpickle, msgpack, msgspec, psutil, zmq

for module in (os, select, signal, socket):
    for name in dir(module):
        if name.startswith(("EPOLL", "MFD_", "memfd", "pidfd", "eventfd", "sched_", "epoll")):
            delattr(module, name)
for name in ("SO_PEERCRED", "SO_PASSCRED", "AF_NETLINK", "SOCK_CLOEXEC", "SOCK_NONBLOCK"):
    delattr(socket, name)
sys.modules["zray.runtime.linux"] = None

import zray
import zray.nodes.driver.driver
for name in zray.__all__:
    getattr(zray, name)
"""


def test_scripts_of_the_gate_are_executable() -> None:
    for name in ("ray-venv", "venv", "system-packages"):
        assert os.access(ROOT / ".ci" / name, os.X_OK)


def test_examples_import_what_users_import() -> None:
    wrong = [
        f"{path.name}: {line}"
        for path in sorted((ROOT / "examples").glob("*.py"))
        for line in path.read_text().splitlines()
        if line.startswith(("from zray.", "import zray."))
    ]
    assert not wrong, "\n".join(wrong)
