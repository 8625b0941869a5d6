"""The shell of Environments: the processes that build parts, and the folder of what is built.

What is built, and for how long it stays, the machine says. Loaded with the first environment.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from zray import limits
from zray.core.raylet.effects import BuildPart, EndBuild, RemovePart
from zray.core.raylet.environments import Environments
from zray.runtime.disk import Disk, Done, OwnDirectory
from zray.runtime.environments import Built, Order
from zray.runtime.linux.process_handle import ProcessHandle
from zray.runtime.linux.processes import Interpreter, editable_finders, import_path
from zray.runtime.loop import Loop

_BOOTSTRAP = (
    "import sys, importlib; sys.path[:] = sys.argv[5:]\n"
    "for one in filter(None, sys.argv[4].split(',')): importlib.import_module(one).install()\n"
    "from zray.runtime.environments import main; main()"
)


class _Build:
    """One process, and what it says. ``next``: begins when that has ended, which nobody wants."""

    def __init__(
        self, process: subprocess.Popen[bytes], result: int, package: Path | None, turn: int
    ) -> None:
        self.process = process
        self.handle = ProcessHandle(process.pid)
        self.result = result
        self.package = package
        self.turn = turn
        self.is_ended = False
        self.next: Callable[[], None] = _nothing
        self.rest = b""
        self.tail: deque[str] = deque(maxlen=100)  # lines


class EnvironmentBuilds:
    """``environments``: as of now. ``removed``: hears of parts before they are, or are
    built anew."""

    def __init__(
        self,
        loop: Loop,
        environments: Callable[[], Environments],
        removed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._environments = environments
        self._removed = removed
        self._directory = OwnDirectory(None, "environments")
        self._disk = Disk()
        self._builds: dict[str, _Build] = {}
        self._turns = itertools.count()
        self._wanted: dict[str, int] = {}  # which build of a part, of several one after the other
        self.interpreters: dict[str, Interpreter] = {}
        loop.watch(self._disk, self._disk.finish)

    def carry_out(self, effect: BuildPart | EndBuild | RemovePart) -> None:
        """Do what the machine wants."""
        if isinstance(effect, BuildPart):
            self._wanted[effect.part_id] = turn = next(self._turns)
            if effect.data is None:
                self._start(turn, effect, None)
            else:
                self._disk.do(partial(self._write, turn, effect))
        elif isinstance(effect, EndBuild):
            self._wanted.pop(effect.part_id, None)
            build = self._builds.get(effect.part_id)
            if build is not None:
                build.is_ended = True
                _kill(build)
        else:
            self._removed(effect.part_id)
            self.interpreters.pop(effect.part_id, None)
            self._remove(self._directory.here() / effect.part_id)

    # ---- building ------------------------------------------------------------------------------

    def _write(self, turn: int, effect: BuildPart) -> Done:
        """In the thread for files: a package gets a file, out of shared memory."""
        try:
            with memoryview(effect.data or b"") as data:
                name = f"{effect.part_id}-{secrets.token_hex(4)}.package"
                path = self._directory.write(name, data)
        except OSError as error:
            return partial(self._failed, effect.part_id, turn, f"it cannot be written: {error}")
        return partial(self._start, turn, effect._replace(data=None), path)

    def _start(self, turn: int, effect: BuildPart, package: Path | None) -> None:
        number = effect.part_id
        build, wanted = self._builds.get(number), self._wanted.get(number) == turn
        if wanted and build is not None and build.is_ended:
            build.next()  # removes its package: that is not wanted any more
            build.next = partial(self._start, turn, effect, package)
            return
        if wanted and build is not None:
            build.turn = turn  # it was begun for another incarnation
        if not wanted or build is not None:
            if package is not None:
                self._remove(package)
            return
        try:
            self._builds[number] = self._spawn(turn, effect, package)
        except OSError as error:
            if package is not None:
                self._remove(package)
            self._failed(number, turn, f"no process can be started for it: {error}")
            return
        build = self._builds[number]
        self._environments().began(number, build.process.pid)
        assert build.process.stdout is not None
        os.set_blocking(build.process.stdout.fileno(), False)
        self._loop.watch(build.process.stdout, partial(self._read, number, build))
        self._loop.watch(build.handle, partial(self._process_ended, number, build))

    def _spawn(self, turn: int, effect: BuildPart, package: Path | None) -> _Build:
        self._removed(effect.part_id)
        target = self._directory.here() / effect.part_id
        self._remove(target)  # of another incarnation
        path, finders = import_path(), editable_finders()
        order = Order(effect.part, str(target), str(package or ""), path, finders)
        fds = [os.memfd_create(f"zray-{what}") for what in ("order", "built")]
        try:
            os.pwrite(fds[0], msgspec.msgpack.encode(order), 0)
            arguments = [str(os.getpid()), *map(str, fds), ",".join(finders), *path]
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                pass_fds=fds,
                start_new_session=True,
            )
        except BaseException:
            os.close(fds[1])
            raise
        finally:
            os.close(fds[0])
        return _Build(process, fds[1], package, turn)

    def _read(self, number: str, build: _Build) -> None:
        assert build.process.stdout is not None
        try:
            data = os.read(build.process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._loop.unwatch(build.process.stdout)
            return
        *lines, build.rest = (build.rest + data).split(b"\n")
        build.rest = build.rest[-limits.BRIEF_TEXT_MAX :]
        decoded = (line.decode("utf-8", "replace").rstrip() for line in lines)
        texts = [text[: limits.BRIEF_TEXT_MAX] for text in decoded if text]
        build.tail.extend(texts)
        self._environments().said(number, texts)

    def _process_ended(self, number: str, build: _Build) -> None:
        self._loop.unwatch(build.handle)
        self._read(number, build)  # what it said last
        _kill(build)  # what it has left behind; its group's number is taken until it is waited for
        status = build.process.wait()
        data = os.pread(build.result, os.fstat(build.result).st_size, 0)
        self._close(number, build)
        target = self._directory.here() / number
        if self._wanted.get(number) != build.turn:
            self._remove(target)
            build.next()
            return
        if status == 0 and data:
            built = msgspec.msgpack.decode(data, type=Built)
            if built.interpreter is not None:
                self.interpreters[number] = built.interpreter
            del self._wanted[number]
            self._environments().built(number, built.bytes, built.place, self._loop.now())
            return
        self._remove(target)
        said = "\n".join(build.tail)[-limits.BUILD_TEXT_MAX :]
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        self._failed(number, build.turn, said or f"its build ended with {how}, and said nothing")

    def _close(self, number: str, build: _Build) -> None:
        assert build.process.stdout is not None
        self._loop.unwatch(build.process.stdout)
        build.process.stdout.close()
        build.handle.close()
        os.close(build.result)
        del self._builds[number]
        if build.package is not None:
            self._remove(build.package)

    def _failed(self, number: str, turn: int, text: str) -> None:
        if self._wanted.get(number) != turn:
            return
        del self._wanted[number]
        self._environments().failed(number, text, self._loop.now())

    # ---- files ---------------------------------------------------------------------------------

    def _remove(self, path: Path) -> None:
        """Soon; the name is free at once."""
        away = path.with_name(f"{path.name}-{secrets.token_hex(4)}.away")
        try:
            path.rename(away)
        except OSError:  # it is not there
            return
        self._disk.do(partial(_delete, away))

    def close(self) -> None:
        """End all builds, and leave nothing."""
        for number, build in [*self._builds.items()]:
            _kill(build)
            build.process.wait()
            self._loop.unwatch(build.handle)
            self._close(number, build)
        self._loop.unwatch(self._disk)
        self._disk.close()
        self._directory.remove()


def _kill(build: _Build) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(build.process.pid, signal.SIGKILL)


def _nothing() -> None:
    pass


def _delete(path: Path) -> Done:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
    return lambda: None
