"""Builds one part of a runtime environment: the life of a process that a node starts for that.

What it prints goes to drivers, and into the error if it fails. It ends with its node, and what it
has started with it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import msgspec

from zray import limits
from zray.protocol import messages as m
from zray.runtime import packages
from zray.runtime.linux.processes import Interpreter
from zray.runtime.linux.zygote import end_with_parent

_PROBE = (
    "import json, sys; print(json.dumps([list(sys.version_info[:2]), sys.executable, sys.prefix,"
    " sys.exec_prefix, [one for one in sys.path if one]]))"
)
_TRIAL = (
    "import importlib, sys; sys.path[:] = sys.argv[2:]\n"
    "for one in filter(None, sys.argv[1].split(',')): importlib.import_module(one).install()\n"
    "importlib.import_module('zray.nodes.worker.worker')"
)


class Order(msgspec.Struct):
    """What is to be built, and where: ``target`` is not there yet. ``package``: its file, if it is
    one. ``path``, ``finders``: as in ``Zygote``, of the node's interpreter."""

    part: m.EnvironmentPart
    target: str
    package: str
    path: list[str]
    finders: list[str]


class Built(msgspec.Struct):
    """What was built. ``place``: the folder of files."""

    bytes: int
    place: str = ""
    interpreter: Interpreter | None = None


class CannotBuildError(Exception):
    """What is told in place of a traceback."""


def main() -> None:
    """argv: pid of the node, descriptors of the order and for what was built."""
    end_with_parent(int(sys.argv[1]))
    order = msgspec.msgpack.decode(_read(int(sys.argv[2])), type=Order)
    try:
        built = build(order)
    except (CannotBuildError, ValueError, OSError) as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(1)
    os.pwrite(int(sys.argv[3]), msgspec.msgpack.encode(built), 0)


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def build(order: Order) -> Built:
    """Build it.

    Raises:
        CannotBuildError, ValueError, OSError: it cannot be built; says why.
    """
    if order.part.kind in (m.WORKING_DIR, m.PY_MODULE):
        return _build_files(order)
    if order.part.kind == m.PY_EXECUTABLE:
        import shlex

        return Built(0, "", _interpreter(shlex.split(order.part.source), order))
    return _build_packages(order)


# ---- files ---------------------------------------------------------------------------------------


def _build_files(order: Order) -> Built:
    target = Path(order.target)
    if order.package:
        package = Path(order.package)
        with open(package, "rb") as file:
            if packages.digest_of(file.read()) != order.part.content:
                raise CannotBuildError("the package is not the one that its name says")
    else:
        package = Path(order.part.source.removeprefix("file://"))
        if not package.is_file():
            raise CannotBuildError(f"{package} is not there; it has to be on every node")
        if package.stat().st_size > limits.PACKAGE_BYTES_MAX:
            most = limits.PACKAGE_BYTES_MAX >> 20
            raise CannotBuildError(f"{package} has more than the {most} MiB that a package may")
    strips_top = not order.package and package.suffix == ".zip"
    return Built(packages.unpack(package, target, strips_top=strips_top), str(target))


# ---- interpreters --------------------------------------------------------------------------------


def _interpreter(command: Sequence[str], order: Order) -> Interpreter:
    """The Python that a command starts, once it has shown that workers can run there."""
    if not command:
        raise CannotBuildError("py_executable names no program")
    said = _said(command[0], [*command, "-I", "-c", _PROBE])
    try:
        told = msgspec.json.decode(said, type=tuple[tuple[int, int], str, str, str, list[str]])
    except msgspec.DecodeError:
        printed = said.decode("utf-8", "replace")[:200]
        raise CannotBuildError(
            f"{command[0]} does not run Python: it printed {printed!r}"
        ) from None
    version, executable, prefix, exec_prefix, path = told
    if version != sys.version_info[:2]:
        theirs, ours = ".".join(map(str, version)), ".".join(map(str, sys.version_info[:2]))
        raise CannotBuildError(f"{command[0]} is Python {theirs}; tasks need that of here, {ours}")
    path = list(dict.fromkeys([*path, *order.path]))
    trial = [executable, "-I", "-S", "-c", _TRIAL, ",".join(order.finders), *path]
    _run(f"importing zray in {executable}", trial)
    return Interpreter(executable, prefix, exec_prefix, path)


def _said(name: str, command: Sequence[str]) -> bytes:
    """What a program prints, which may be anything, and as much as it likes."""
    process = _started(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read(limits.TEXT_MAX)
        if len(said) == limits.TEXT_MAX:
            process.kill()
            raise CannotBuildError(f"{name} does not run Python: it printed {said[:200]!r}...")
    _check(name, process)
    return said


def _run(name: str, command: Sequence[str], env: dict[str, str] | None = None) -> None:
    _check(name, _started(command, env))


def _started(
    command: Sequence[str], env: dict[str, str] | None = None, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    pid = os.getpid()
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            env={**os.environ, **(env or {})},
            preexec_fn=lambda: end_with_parent(pid),
        )
    except OSError as error:
        raise CannotBuildError(f"{command[0]} cannot be started: {error}") from None


def _check(name: str, process: subprocess.Popen[bytes]) -> None:
    if status := process.wait():
        raise CannotBuildError(f"{name} failed (exit status {status})")


# ---- pip and uv ----------------------------------------------------------------------------------


def _build_packages(order: Order) -> Built:
    """A virtual environment in which the node's packages can be imported as well."""
    part, target = order.part, Path(order.target)
    has_pip = importlib.util.find_spec("pip") is not None
    needs_pip = not has_pip or (part.kind == m.PIP and bool(part.version))
    options = [] if needs_pip else ["--without-pip"]
    _run("making a virtual environment", [sys.executable, "-m", "venv", *options, str(target)])
    python = str(target / "bin" / "python")
    _share_packages(target, order.path)
    pip = [python, "-m", "pip"] if needs_pip else [sys.executable, "-m", "pip", "--python", python]
    pip_install = [*pip, "install", "--disable-pip-version-check", "--no-input"]
    env = dict(part.variables)
    requirements = target / "requirements.txt"
    requirements.write_text("".join(f"{line}\n" for line in part.lines))
    if part.kind == m.UV:
        installer = [*_uv(part, target, pip_install, env), "pip", "install", "--python", python]
    else:
        if part.version:
            _run(f"pip install pip{part.version}", [*pip_install, f"pip{part.version}"], env=env)
        installer = pip_install
    if part.lines:
        name = "uv pip install" if part.kind == m.UV else "pip install"
        _run(name, [*installer, *part.options, "-r", str(requirements)], env=env)
    if part.checks:
        _run("pip check", [*pip, "check"], env=env)
    return Built(_size_of(target), str(target), _interpreter([python], order))


def _uv(
    part: m.EnvironmentPart, target: Path, pip_install: Sequence[str], env: dict[str, str]
) -> list[str]:
    if part.version:
        _run(f"pip install uv{part.version}", [*pip_install, f"uv{part.version}"], env=env)
        return [str(target / "bin" / "uv")]
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise CannotBuildError(
            "there is no uv on this node: install it there (pip install uv), or use 'pip' "
            "in place of 'uv'"
        )
    return [found]


def _share_packages(target: Path, path: Sequence[str]) -> None:
    """What the node's interpreter can import is seen behind the environment's own packages."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    folder = target / "lib" / version / "site-packages"
    known = set(sysconfig.get_paths().values())
    shared = [one for one in path if one in known or one.endswith(("-packages",))]
    lines = [f"import site; site.addsitedir({one!r})\n" for one in shared if os.path.isdir(one)]
    (folder / "zray-node-packages.pth").write_text("".join(lines))


def _size_of(folder: Path) -> int:
    found = 0
    for above, _, names in os.walk(folder):
        for name in names:
            found += os.lstat(os.path.join(above, name)).st_size
    return found
