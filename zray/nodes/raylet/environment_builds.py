"""The shell of Environments: the processes that build parts, and the folder of what is built.

What is built, and for how long it stays, the machine says. Loaded with the first environment.
"""

from __future__ import annotations

import contextlib
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
    """One process, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes], result: int, package: Path | None) -> None:
        self.process = process
        self.handle = ProcessHandle(process.pid)
        self.result = result
        self.package = package
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
        self._ended: set[str] = set()  # nobody wants what is being written for them
        self.interpreters: dict[str, Interpreter] = {}
        loop.watch(self._disk, self._disk.finish)

    def carry_out(self, effect: BuildPart | EndBuild | RemovePart) -> None:
        """Do what the machine wants."""
        if isinstance(effect, BuildPart):
            self._ended.discard(effect.part_id)
            if effect.data is None:
                self._start(effect, None)
            else:
                self._disk.do(partial(self._write, effect))
        elif isinstance(effect, EndBuild):
            self._ended.add(effect.part_id)
            build = self._builds.get(effect.part_id)
            if build is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(build.process.pid, signal.SIGKILL)
        else:
            self._removed(effect.part_id)
            self.interpreters.pop(effect.part_id, None)
            self._remove(self._directory.here() / effect.part_id)

    # ---- building ------------------------------------------------------------------------------

    def _write(self, effect: BuildPart) -> Done:
        """In the thread for files: a package gets a file, out of shared memory."""
        try:
            with memoryview(effect.data or b"") as data:
                name = f"{effect.part_id}-{secrets.token_hex(4)}.package"
                path = self._directory.write(name, data)
        except OSError as error:
            return partial(self._failed, effect.part_id, f"it cannot be written: {error}")
        return partial(self._start, effect._replace(data=None), path)

    def _start(self, effect: BuildPart, package: Path | None) -> None:
        number = effect.part_id
        if number in self._ended or number in self._builds:
            if package is not None:
                self._remove(package)
            return
        try:
            self._builds[number] = self._spawn(effect, package)
        except OSError as error:
            if package is not None:
                self._remove(package)
            self._failed(number, f"no process can be started for it: {error}")
            return
        build = self._builds[number]
        self._environments().began(number, build.process.pid)
        assert build.process.stdout is not None
        os.set_blocking(build.process.stdout.fileno(), False)
        self._loop.watch(build.process.stdout, partial(self._read, number, build))
        self._loop.watch(build.handle, partial(self._process_ended, number, build))

    def _spawn(self, effect: BuildPart, package: Path | None) -> _Build:
        self._removed(effect.part_id)
        target = self._directory.here() / effect.part_id
        shutil.rmtree(target, ignore_errors=True)  # of one that was ended
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
        return _Build(process, fds[1], package)

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
        status = build.process.wait()
        data = os.pread(build.result, os.fstat(build.result).st_size, 0)
        self._close(number, build)
        target = self._directory.here() / number
        if number in self._ended:
            self._remove(target)
            return
        if status == 0 and data:
            built = msgspec.msgpack.decode(data, type=Built)
            if built.interpreter is not None:
                self.interpreters[number] = built.interpreter
            self._environments().built(number, built.bytes, built.place, self._loop.now())
            return
        self._remove(target)
        said = "\n".join(build.tail)[-limits.BUILD_TEXT_MAX :]
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        self._failed(number, said or f"its build ended with {how}, and said nothing")

    def _close(self, number: str, build: _Build) -> None:
        assert build.process.stdout is not None
        self._loop.unwatch(build.process.stdout)
        build.process.stdout.close()
        build.handle.close()
        os.close(build.result)
        del self._builds[number]
        if build.package is not None:
            self._remove(build.package)

    def _failed(self, number: str, text: str) -> None:
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
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(build.process.pid, signal.SIGKILL)
            build.process.wait()
            self._loop.unwatch(build.handle)
            self._close(number, build)
        self._loop.unwatch(self._disk)
        self._disk.close()
        self._directory.remove()


def _delete(path: Path) -> Done:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
    return lambda: None
