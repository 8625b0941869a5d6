"""The processes of a node's workers: forked by the zygote, listened to, told, killed, and missed.

Owns the zygotes and each worker's channel; what is said over that the Raylet machine decides.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from zray import limits
from zray.core.raylet.effects import StartWorker
from zray.core.raylet.printed import FILE_ID_MAX, PrintedPart
from zray.core.raylet.raylet import Raylet
from zray.errors import ProtocolError, StartError
from zray.nodes.raylet.worker_channel import Printer, WorkerChannel
from zray.nodes.raylet.zygotes import Zygotes
from zray.protocol import codec
from zray.protocol.messages import Message, Tasks
from zray.runtime import log_files
from zray.runtime.linux import machine
from zray.runtime.linux.gpus import Gpu, told
from zray.runtime.linux.processes import (
    Event,
    Exited,
    Forked,
    ForkFailed,
    Interpreter,
    WorkerChannels,
    Zygote,
    ZygoteDied,
)
from zray.runtime.log_files import LogBounds
from zray.runtime.loop import Loop
from zray.runtime.stream import read_available

URGENT = (
    "Recall",
    "Cancel",
    "CancelTask",
    "CancelCall",
    "Revoke",
    "Trace",
    "Locate",
    "Examine",
    "AskHeld",
)


HEAD_VARIABLE = "ZRAY_HEAD_ADDRESS"


class WorkerProcesses:
    """The shell of the Raylet machine towards its workers.

    Args:
        zygote: one that has been started. ``environment``: of that and of others.
        interpreters: of environments, by the parts that they are.
        log_directory: where what they print is kept, too, as ``log_bounds`` says.
        gone: hears of each one that has ended, before the machine does.
        say: a line for whoever runs the node.
        failed: hears what went wrong for one worker only, and which.

    Attributes:
        channels: of those that have not ended.
        gpus: of the machine, as they were found.
        head_address: where a worker is told that its head is.
        failure: why no worker can ever be started here.
    """

    def __init__(
        self,
        loop: Loop,
        zygote: Zygote,
        environment: dict[str, str],
        interpreters: Callable[[str], Interpreter | None],
        raylet: Raylet,
        gpus: Sequence[Gpu],
        log_directory: Path | None,
        log_bounds: LogBounds,
        gone: Callable[[bytes], None],
        say: Callable[[str], None],
        failed: Callable[[str, Exception, str], None],
    ) -> None:
        self._loop = loop
        self.zygotes = Zygotes(loop, zygote, environment, self._heard)
        self._interpreter = interpreters
        self._raylet = raylet
        self.gpus = gpus
        self._log_directory = log_directory
        self._log_bounds = log_bounds
        self._logs_at = 0.0  # when to look at them
        self._gone = gone
        self._say = say
        self._on_failure = failed
        self.channels: dict[bytes, WorkerChannel] = {}
        self.head_address: Callable[[], str] = str
        self.failure: StartError | None = None
        self._oom = machine.OomWatch()
        self._lease_until = 0.0  # as the workers know it
        self._has_forked = False
        self._zygote_at = 0.0  # not sooner: it has just been started, or could not be

    @property
    def zygote_pid(self) -> int | None:
        """Of the process whose children the workers are; None: it does not run."""
        return self.zygotes.pid

    def tend(self, now: float) -> None:
        """Once a turn: tell workers how long they may serve, and see that they can be forked."""
        lease_until = self._raylet.session.lease_until
        if lease_until != self._lease_until:
            self._lease_until = lease_until
            for channel in self.channels.values():
                channel.channels.page.lease_until = lease_until
        if self.zygotes.pid is None:
            self._start_zygote(now)
        self.zygotes.tend(now)
        if now >= self._logs_at:
            self._logs_at = now + limits.LOGS_LOOK_S
            self._tend_logs()

    def _tend_logs(self) -> None:
        try:
            for channel in self.channels.values():
                channel.tend_log()
            if self._log_directory is not None and self._log_directory.is_dir():
                log_files.prune(self._log_directory, {one.hex() for one in self.channels})
        except OSError as error:
            self._on_failure("rotating the logs of workers", error, "")

    def redirect(self, fd: int) -> None:
        """What the zygotes themselves say goes to this file from now on."""
        self.zygotes.redirect(fd)

    # ---- beginnings ------------------------------------------------------------------------

    def start(self, effect: StartWorker) -> None:
        """A worker that cannot be started is one that ended before it began anything."""
        worker_id = effect.worker_id
        if self._raylet.environments.lacks(effect.key, self._is_there):
            cause = "some of its environment was removed, and is built again"
            self._raylet.worker_exited(worker_id, 0, cause, self._loop.now())
            return
        try:
            machine.check_descriptors()
            channel = WorkerChannel(self._fork(effect))
            self.channels[worker_id] = channel
            channel.channels.page.lease_until = self._lease_until
            self._open_log(worker_id, channel)
            self._watch_printers(worker_id, channel)
            self._loop.watch(channel.channels.task, lambda: self._read_worker(worker_id, channel))
        except Exception as error:
            self._on_failure("starting a worker", error, "")
            cause = f"it could not be started: {error}"
            self.zygotes.kill(worker_id)
            if worker_id in self.channels:
                self._worker_gone(worker_id, cause)
            else:
                self._raylet.worker_exited(worker_id, 0, cause, self._loop.now())

    def _fork(self, effect: StartWorker) -> WorkerChannels:
        env = self._environment(effect)
        prepared = self._raylet.environments.prepared(effect.key)
        name = prepared.interpreter if prepared is not None else ""
        interpreter = self._interpreter(name) if name else None
        if interpreter is not None:
            folder = os.path.dirname(interpreter.executable)
            env["PATH"] = os.pathsep.join((folder, os.environ.get("PATH", os.defpath)))
            env["VIRTUAL_ENV"] = interpreter.prefix
        return self.zygotes.fork(effect.worker_id, env, name, interpreter)

    def _is_there(self, part_id: str, place: str) -> bool:
        interpreter = self._interpreter(part_id)
        wanted = (place, interpreter.executable if interpreter is not None else "")
        return all(os.path.exists(one) for one in wanted if one)

    def _environment(self, effect: StartWorker) -> dict[str, str]:
        _, gpus, threads, _ = effect.key
        env = told([*self.gpus], [*gpus])
        env[HEAD_VARIABLE] = self.head_address()
        for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM"):
            if f"{name}_NUM_THREADS" not in os.environ:
                env[f"{name}_NUM_THREADS"] = str(threads)
        return env

    def _open_log(self, worker_id: bytes, channel: WorkerChannel) -> None:
        directory = self._log_directory
        if directory is None:
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            channel.open_log(directory / f"worker-{worker_id.hex()}.log", self._log_bounds)
        except OSError as error:  # what it prints reaches its driver all the same
            self._on_failure("opening the log of a worker", error, "")

    def _watch_printers(self, worker_id: bytes, channel: WorkerChannel) -> None:
        def reader(printer: Printer) -> None:
            def read() -> None:
                self._read_printer(worker_id, channel, printer)

            self._loop.watch(printer.fd, read, first=True)  # before the result that follows

        for printer in channel.printers:
            reader(printer)

    # ---- what they say and are told --------------------------------------------------------

    def _read_printer(self, worker_id: bytes, channel: WorkerChannel, printer: Printer) -> None:
        pieces, lines, ended = printer.read()
        try:
            for task_id, data in pieces:
                channel.write_log(data)
                end = channel.log_end() if task_id else None
                if end is not None:
                    part = PrintedPart(end[0] % FILE_ID_MAX, end[1] - len(data), end[1])
                    self._raylet.inspection.printed(worker_id, task_id, part)
        except OSError as error:
            self._on_failure("writing the log of a worker", error, self._raylet.named(worker_id))
        if lines:
            if printer.is_error:
                channel.last_words.extend(lines)
            if self._raylet.is_leased(worker_id):
                self._take_messages(worker_id, channel)  # it has said of what they are
            self._raylet.output.log(worker_id, printer.is_error, lines)
        if ended:
            self._loop.unwatch(printer.fd)
            channel.printers.remove(printer)

    def _read_worker(self, worker_id: bytes, channel: WorkerChannel) -> None:
        ended = self._take_messages(worker_id, channel)
        if ended:
            self._loop.unwatch(channel.channels.task)
            self.zygotes.kill(worker_id)  # it closed its socket, so it cannot be used any more

    def _take_messages(self, worker_id: bytes, channel: WorkerChannel) -> bool:
        """Hand on what a worker has said; whether it will say nothing more."""
        if channel.broken:
            return True
        now = self._loop.now()
        try:
            frames, ended = read_available(channel.channels.task, channel.reader)
            for frame in frames:
                payload = codec.decode(frame)
                for message in payload.messages:
                    self._raylet.worker_message(worker_id, message, now)
                if payload.refused:
                    self._raylet.worker_refused(worker_id, payload.refused, now)
        except (ProtocolError, OSError) as error:
            channel.broken = True
            self._raylet.worker_failed(worker_id, "reading what a worker said", error, now)
            return True
        return ended

    def send(self, worker_id: bytes, messages: list[Message]) -> None:
        """Tell a worker, or nobody if it has ended; what is urgent goes by a way of its own."""
        channel = self.channels.get(worker_id)
        if channel is None:
            return
        urgent = [m for m in messages if type(m).__name__ in URGENT]
        try:
            if len(urgent) < len(messages):
                rest = [m for m in messages if m not in urgent] if urgent else messages
                for payload in codec.encode_local(rest):
                    channel.task.send_nowait(payload)
                if channel.task.pending:
                    self._wait_writable(worker_id, channel)
            for payload in codec.encode_local(urgent) if urgent else ():
                channel.control.send_nowait(payload)
        except OSError:  # it has just ended, or a part of what it was told is lost
            self.zygotes.kill(worker_id)

    def put(self, worker_id: bytes, tasks: Tasks) -> None:
        """Let tasks wait behind others of a worker, which reads before what it was told before."""
        channel = self.channels.get(worker_id)
        if channel is None:
            return  # it has ended, and what it had with it
        payloads = codec.encode_local([tasks])
        late = channel.task.pending or len(payloads) > 1
        if late or not channel.channels.queue.put(payloads[0]):
            self._raylet.behind.refused(worker_id, tasks)

    def _begun(self, worker_id: bytes) -> int:
        """How many tasks a worker has begun in its life."""
        channel = self.channels.get(worker_id)
        return channel.channels.page.count if channel is not None else 0

    def take_back(self, worker_id: bytes) -> list[Tasks]:
        """Whatever a worker has not taken, in order."""
        found: list[Tasks] = []
        channel = self.channels.get(worker_id)
        while channel is not None and (packet := channel.channels.queue.take()) is not None:
            for message in codec.decode(packet).messages:
                assert isinstance(message, Tasks)
                found.append(message)
        return found

    def _wait_writable(self, worker_id: bytes, channel: WorkerChannel) -> None:
        def read() -> None:
            self._read_worker(worker_id, channel)

        def write() -> None:
            try:
                if not channel.task.flush():
                    return
            except OSError:
                self.zygotes.kill(worker_id)
            self._loop.watch(channel.channels.task, read)

        self._loop.watch(channel.channels.task, read, write)

    def kill(self, worker_id: bytes) -> None:
        """End its process group now."""
        self.zygotes.kill(worker_id)

    # ---- the zygote, and ends --------------------------------------------------------------

    def _heard(self, interpreter: str, event: Event) -> None:
        if isinstance(event, Forked):
            self._has_forked = True
            begun = partial(self._begun, event.worker_id)
            self._raylet.workers.started(event.worker_id, event.pid, begun)
        elif isinstance(event, Exited):
            killed = event.signal == signal.SIGKILL
            oom = killed and not self._raylet.workers.killed(event.worker_id) and self._oom.struck()
            self._worker_gone(event.worker_id, machine.status_text(event, oom))
        elif isinstance(event, ForkFailed):
            self._worker_gone(event.worker_id, f"it could not be started: {event.reason}")
        else:
            self._zygote_died(interpreter, event)

    def _zygote_died(self, interpreter: str, event: ZygoteDied) -> None:
        self._say(f"the zygote ended ({machine.status_text(event)}); starting another")
        if event.text and not (self._has_forked or interpreter):
            self.failure = StartError(f"workers cannot be started:\n{event.text}")
        elif event.text:  # what has worked may work again
            self._on_failure("forking workers", RuntimeError(event.text), "")
        for worker_id in event.worker_ids:
            self._worker_gone(worker_id, "it ended with its zygote")
        if not interpreter:
            self._start_zygote(self._loop.now())

    def _start_zygote(self, now: float) -> None:
        if now < self._zygote_at:
            return
        self._zygote_at = now + limits.ZYGOTE_STARTS_S
        try:
            self.zygotes.start_own()
        except OSError as error:
            self._zygote_at = now + limits.FORK_RETRY_MAX_S
            self._on_failure("starting the zygote", error, "")

    def _worker_gone(self, worker_id: bytes, cause: str) -> None:
        channel = self.channels.pop(worker_id, None)
        if channel is None:
            return
        now = self._loop.now()
        self._take_messages(worker_id, channel)  # what it finished saying before it died counts
        for printer in [*channel.printers]:
            self._read_printer(worker_id, channel, printer)
        for printer in channel.printers:
            self._loop.unwatch(printer.fd)
        self._loop.unwatch(channel.channels.task)
        if channel.last_words:
            cause += "; its last words:\n" + "\n".join(channel.last_words)
        self._gone(worker_id)
        started = channel.channels.page.count
        channel.close()
        self._raylet.worker_exited(worker_id, started, cause, now)

    def close(self) -> None:
        """End every worker, and leave no empty log."""
        self.zygotes.close()
        for channel in self.channels.values():
            channel.close()
        if self._log_directory is not None:
            with contextlib.suppress(OSError):  # it does not exist, or there are logs in it
                self._log_directory.rmdir()
