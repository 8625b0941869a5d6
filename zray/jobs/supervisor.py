"""The supervisor of a submitted job: an actor that has its command run, and tells how that ended.

Its process has the job's environment and directory, which the command inherits. The command is a
child of a `job_runner`, which ends it and all that it has started once this process has ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from zray import limits
from zray.api.submitted_job import CONFIG_VARIABLE, ID_VARIABLE
from zray.protocol import messages as m
from zray.protocol.errors import cut_text
from zray.runtime import session
from zray.runtime.linux import job_runner

RUN_VARIABLE = "ZRAY_JOB_RUN"  # in the environment of everything that a command has started
HEAD_VARIABLE = "ZRAY_HEAD_ADDRESS"  # of workers: where their node's head is
ASK_S = 60.0
MADE_S = 0.005
ABANDONED_S = 0.1  # between two looks for what a runner has left that was killed
_BY_TASK = ("CUDA_VISIBLE_DEVICES", *(f"{one}_NUM_THREADS" for one in ("OMP", "MKL", "OPENBLAS")))
_BY_TASK = (*_BY_TASK, "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class JobSupervisor:
    """``config``: JSON for the programs of the command. ``chooses``: the job has asked for
    resources, so that its command sees no others."""

    def __init__(self, submission_id: str, command: str, config: str, chooses: bool) -> None:
        worker = session.current()
        self._actor_id: bytes = worker.actor_id
        self._mark = f"{RUN_VARIABLE}={self._actor_id.hex()}".encode()
        environment = _environment(submission_id, config, self._actor_id.hex(), chooses)
        ours, theirs = os.pipe()
        try:
            self._runner = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(job_runner.__file__)), str(theirs)],
                stdin=subprocess.PIPE,
                env=environment,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._status = ours
        order = json.dumps({"command": command, "grace_s": limits.JOB_STOP_S})
        assert self._runner.stdin is not None
        self._runner.stdin.write(order.encode() + b"\n")
        self._runner.stdin.flush()
        self._watcher = threading.Thread(target=self._watch, name="zray-job", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        """Until the command has ended, and the head knows how; then the actor ends."""
        code, text = self._outcome()
        worker = session.current()
        while worker.actor is None:  # it is being made still
            time.sleep(MADE_S)
        what = (self._actor_id, worker.worker_id, code, text)
        while worker.ask(lambda seq: m.JobExited(seq, *what), ASK_S) is None:
            pass  # a head that is away may take long to come back
        worker.leaves()

    def _outcome(self) -> tuple[int, str]:
        with open(self._status, "rb") as status:
            data = status.read()
        self._runner.wait()
        try:
            told: dict[str, Any] = json.loads(data)
        except ValueError:
            self._end_what_is_left()
            return m.NO_EXIT_CODE, (
                f"the process that ran the command has ended with {self._runner.returncode}; what "
                "the command had started was killed"
            )
        code = told["exit_code"]
        text = cut_text(told["text"], limits.JOB_LAST_WORDS_BYTES)
        return (m.NO_EXIT_CODE if code is None else code), text if code else ""

    def _end_what_is_left(self) -> None:
        """The runner is gone, and with it the one who knew what the command has started."""
        deadline = time.monotonic() + job_runner.GIVE_UP_S
        while found := [pid for pid in _others() if self._mark in _environ(pid)]:
            for pid in found:
                job_runner.kill(pid, signal.SIGKILL)
            if time.monotonic() >= deadline:
                return
            time.sleep(ABANDONED_S)

    def __ray_shutdown__(self) -> None:
        """The job is to be stopped: the command ends first, and all that it has started."""
        assert self._runner.stdin is not None
        self._runner.stdin.close()
        job_runner.kill(self._runner.pid, signal.SIGCONT)  # a command may have stopped it
        self._runner.wait()


def _environment(submission_id: str, config: str, run: str, chooses: bool) -> dict[str, str]:
    """That of the command: of this process, and what leads its programs to this cluster."""
    environment = dict(os.environ)
    if not chooses:  # this process has nothing of the node, but the command may use all
        before = _environ(os.getppid()).split(b"\0")
        given = dict(one.split(b"=", 1) for one in before if b"=" in one)
        for name in _BY_TASK:
            environment.pop(name, None)
            if name.encode() in given:
                environment[name] = os.fsdecode(given[name.encode()])
    address = environment.pop(HEAD_VARIABLE, "")
    if address:
        environment["ZRAY_ADDRESS"] = environment["RAY_ADDRESS"] = address
    here = os.path.dirname(sys.executable)
    path = environment.get("PATH", os.defpath)
    if here not in path.split(os.pathsep):
        environment["PATH"] = os.pathsep.join([here, path])
    return {
        **environment,
        ID_VARIABLE: submission_id,
        CONFIG_VARIABLE: config,
        RUN_VARIABLE: run,
        "PYTHONUNBUFFERED": "1",
    }


def _others() -> list[int]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid()]


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
