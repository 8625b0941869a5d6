"""Real zygotes, real workers: what a worker is born with, how its end is told, what is left."""

from __future__ import annotations

import ast
import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zray.runtime.linux import processes
from zray.runtime.linux.processes import (
    Event,
    Exited,
    Forked,
    ForkFailed,
    WorkerChannels,
    Zygote,
    ZygoteDied,
)
from zray.runtime.stream import FrameReader, FrameWriter, read_frames

DEADLINE_S = 15.0

# A worker that runs the statements it is sent and answers with the repr of `reply`.
ENTRY = """
import ctypes, gc, os, random, signal, socket, subprocess, sys, time
from zray.runtime.linux.channels import open_page
from zray.runtime.linux.zygote import set_process_name
from zray.runtime.stream import FrameReader, FrameWriter, read_frames

def prepare():
    return live

def live(worker_id, task_fd, control_fd, page_fd, queue_fd):
    scope = dict(globals(), worker_id=worker_id, control_fd=control_fd, page_fd=page_fd)
    sock, reader = socket.socket(fileno=task_fd), FrameReader()
    writer = FrameWriter(sock)
    while "leave" not in scope:
        frames, eof = read_frames(sock, reader)
        for frame in frames:
            exec(bytes(frame).decode(), scope)
            if "leave" not in scope:
                writer.send(repr(scope.get("reply")).encode())
        if eof:
            return 0
    return scope["leave"]
"""

SPAWN = "p = subprocess.Popen([{python!r}, '-c', {code!r}], start_new_session={new}); reply = p.pid"


class Rig:
    """A zygote, its workers' channels and all events so far; everything it made ends with it."""

    def __init__(self, entry: str = "zygote_test_entry:prepare") -> None:
        self.zygote = Zygote(entry, extra_env={"FROM_RAYLET": "yes"})
        self.channels: dict[bytes, WorkerChannels] = {}
        self.seen: list[Event] = []
        self.zygote.start()

    def fork(self, worker_id: bytes, env: dict[str, str] | None = None) -> WorkerChannels:
        channels = self.zygote.fork(worker_id, env or {})
        channels.task.settimeout(DEADLINE_S)
        self.channels[worker_id] = channels
        return channels

    def until(self, done: Callable[[], Any], wanted: str) -> Any:
        """Handle events until `done` returns something."""
        deadline = time.monotonic() + DEADLINE_S
        while not (result := done()):
            assert time.monotonic() < deadline, f"no {wanted}; seen: {self.seen}"
            select.select([self.zygote] if self.zygote.pid else [], [], [], 0.05)
            self.seen += self.zygote.events()
        return result

    def find(self, kind: type[Any], worker_id: bytes | None = None) -> Any:
        def done() -> Any:
            for event in self.seen:
                if isinstance(event, kind) and worker_id in (None, getattr(event, "worker_id", 0)):
                    return event
            return None

        return self.until(done, f"{kind.__name__} of {worker_id!r}")

    def close(self) -> None:
        self.zygote.close()
        for channels in self.channels.values():
            channels.close()


def ask(channels: WorkerChannels, source: str) -> Any:
    FrameWriter(channels.task).send(source.encode())
    frames, eof = read_frames(channels.task, FrameReader())
    assert not eof
    return ast.literal_eval(bytes(frames[0]).decode())


def tell(channels: WorkerChannels, source: str) -> None:
    FrameWriter(channels.task).send(source.encode())


def read_all(fd: int) -> str:
    """A pipe's text up to its end."""
    os.set_blocking(fd, True)
    with open(fd, "rb", closefd=False) as file:
        return file.read().decode()


def spawn(channels: WorkerChannels, new_session: bool = False) -> int:
    """Have the worker start a process that lives on by itself; returns its pid."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    pid = ask(channels, SPAWN.format(python=sys.executable, code=code, new=new_session))
    assert isinstance(pid, int)
    return pid


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def gone(*pids: int) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def held_by(pid: int) -> list[str]:
    """The kinds of what another process's descriptors are, sorted."""
    links = map(os.readlink, Path(f"/proc/{pid}/fd").iterdir())
    return sorted(link.partition(":")[0] for link in links)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "zygote_test_entry.py").write_text(ENTRY)
    monkeypatch.syspath_prepend(tmp_path)
    before = open_fds()
    yield tmp_path
    assert open_fds() == before


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    try:
        yield made
    finally:
        made.close()


# ---- what a worker is born with -------------------------------------------------------------


def test_worker_is_its_own_session_with_clean_signals_and_environment(rig: Rig) -> None:
    worker = rig.fork(b"\0\xff", {"ONLY_HERE": "caf\u00e9"})
    event = rig.find(Forked)
    facts = ask(
        worker,
        "reply = [worker_id, os.getpid(), os.getsid(0), os.getpgid(0), os.getppid(),"
        " os.environ['ONLY_HERE'], os.environ['FROM_RAYLET'], os.read(0, 1), gc.isenabled(),"
        " signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
        " [int(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)],"
        " sys.prefix, sys.argv, open('/proc/self/comm').read().strip()]",
    )
    pid = event.pid
    assert facts == [
        *(b"\0\xff", pid, pid, pid, rig.zygote.pid, "caf\u00e9", "yes", b"", True, True),
        *([0, 0, 0], sys.prefix, [""], "zray-idle"),
    ]
    assert Path(f"/proc/{rig.zygote.pid}/comm").read_text().strip() == "zray-zygote"
    assert ask(worker, "set_process_name('zray-x'); reply = open('/proc/self/comm').read()") == (
        "zray-x\n"
    )
    died_with_parent = "n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); "
    assert ask(worker, died_with_parent + "reply = n.value") == signal.SIGKILL


def test_worker_holds_nothing_of_its_siblings(rig: Rig) -> None:
    workers = [rig.fork(b"%d" % i) for i in range(4)]
    rig.until(lambda: len(rig.seen) == 4, "4 forks")
    for index, worker in enumerate(workers):
        ask(worker, "pass")  # it is in its entry now
        assert held_by(rig.find(Forked, b"%d" % index).pid) == [
            *("/dev/null", "/memfd", "pipe", "pipe", "socket", "socket", "socket")
        ]
    for index, worker in enumerate(workers):
        tell(worker, "leave = 0")
        rig.find(Exited, b"%d" % index)
        assert worker.control.recv(1) == b""  # nobody else holds the other end
        assert read_all(worker.stdout_fd) == ""


def test_a_program_that_a_worker_starts_gets_none_of_its_channels(rig: Rig) -> None:
    worker = rig.fork(b"w")
    program = "import os; print(*sorted(os.listdir('/proc/self/fd')))"
    run = f"subprocess.run([sys.executable, '-c', {program!r}], close_fds=False, stdout=-1)"
    assert ask(worker, f"reply = {run}.stdout") == b"0 1 2 3\n"  # 3: the listing itself


def test_workers_start_light_and_differ(rig: Rig) -> None:
    first, second = rig.fork(b"1"), rig.fork(b"2")
    heavy = "reply = sorted({'zmq', 'numpy', 'click', 'asyncio', 'rich'} & set(sys.modules))"
    assert ask(first, heavy) == []
    assert ask(first, "reply = 'cloudpickle' in sys.modules") is True
    draw = "reply = random.getrandbits(64)"
    assert ask(first, draw) != ask(second, draw)


def test_output_arrives_line_by_line_in_any_script(rig: Rig) -> None:
    worker = rig.fork(b"w")
    ask(worker, "print('h\u00e9llo \u4f60\u597d \\udcff'); print('oops', file=sys.stderr)")
    assert os.read(worker.stdout_fd, 100).decode() == "h\u00e9llo \u4f60\u597d \\udcff\n"
    assert os.read(worker.stderr_fd, 100) == b"oops\n"
    with pytest.raises(BlockingIOError):
        os.read(worker.stdout_fd, 1)


def test_counter_is_readable_after_the_worker_was_killed(rig: Rig) -> None:
    worker = rig.fork(b"w")
    assert worker.page.count == 0
    ask(worker, "c = open_page(page_fd); c.count = 2**63 + 5")
    assert worker.page.count == 2**63 + 5
    with pytest.raises(AssertionError):
        ask(worker, "os.kill(os.getpid(), 9)")
    assert worker.page.count == 2**63 + 5


def test_worker_cannot_take_the_counter_page_away(rig: Rig) -> None:
    worker = rig.fork(b"w")
    shrink = "try:\n os.ftruncate(page_fd, 0)\nexcept PermissionError: reply = 'refused'"
    assert ask(worker, shrink) == "refused"


# ---- how its end is told --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("leave = 3", 3, ""),
        ("leave = None", 0, ""),
        ("os._exit(7)", 7, ""),
        ("exit(4)", 4, ""),
        ("sys.exit('no luck')", 1, "no luck"),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_exit_codes(rig: Rig, source: str, code: int, words: str) -> None:
    worker = rig.fork(b"w")
    tell(worker, "sys.stdout.write('last words'); sys.stdout.flush()\n" + source)
    exited = rig.find(Exited)
    assert (exited.exit_code, exited.signal) == (code, None)
    assert exited.pid == rig.find(Forked).pid
    assert exited.max_rss_bytes > 1 << 20
    assert exited.user_s + exited.system_s < 5
    assert read_all(worker.stdout_fd) == "last words"
    assert words in read_all(worker.stderr_fd)


def test_a_crash_names_its_signal_and_leaves_a_stack(rig: Rig) -> None:
    worker = rig.fork(b"w")
    tell(worker, "ctypes.string_at(0)")
    exited = rig.find(Exited)
    assert (exited.exit_code, exited.signal) == (None, signal.SIGSEGV)
    assert "Segmentation fault" in read_all(worker.stderr_fd)


def test_pidfd_tells_the_moment_of_death(rig: Rig) -> None:
    worker = rig.fork(b"w")
    forked = rig.find(Forked)
    assert select.select([forked.pidfd], [], [], 0)[0] == []
    tell(worker, "leave = 0")
    assert select.select([forked.pidfd], [], [], DEADLINE_S)[0] == [forked.pidfd]


@pytest.mark.parametrize("kernel", ["new", "before 6.9"])
def test_kill_reaches_the_whole_group_by_id_and_by_pid(
    rig: Rig, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel != "new":  # which refuses flags that it does not know
        monkeypatch.setattr(processes, "PIDFD_SIGNAL_PROCESS_GROUP", 1 << 30)
    for worker_id in (b"1", b"2"):
        worker = rig.fork(worker_id)
        forked = rig.find(Forked, worker_id)
        child = spawn(worker)
        assert rig.zygote.kill(worker_id if worker_id == b"1" else forked.pid)
        exited = rig.find(Exited, worker_id)
        assert exited.signal == signal.SIGKILL
        assert gone(child)
        assert not rig.zygote.kill(worker_id)
        assert not rig.zygote.kill(forked.pid)


def test_kill_before_the_fork_is_delivered_at_the_fork(rig: Rig) -> None:
    rig.fork(b"w")
    assert rig.zygote.kill(b"w", signal.SIGTERM)
    assert rig.find(Exited).signal == signal.SIGTERM


def test_interrupt_raises_in_the_worker(rig: Rig) -> None:
    worker = rig.fork(b"w")
    rig.find(Forked)
    sleep = "os.write(control_fd, b'x'); time.sleep(600)"
    tell(worker, f"try:\n {sleep}\nexcept KeyboardInterrupt: reply = 'stopped'")
    assert select.select([worker.control], [], [], DEADLINE_S)[0]
    assert rig.zygote.kill(b"w", signal.SIGINT)
    frames, _ = read_frames(worker.task, FrameReader())
    assert frames == [b"'stopped'"]


def test_children_of_a_killed_worker_die_with_it(rig: Rig) -> None:
    worker = rig.fork(b"w")
    child = spawn(worker)
    os.kill(rig.find(Forked).pid, signal.SIGKILL)
    assert rig.find(Exited).signal == signal.SIGKILL
    assert gone(child)


def test_orphans_that_the_zygote_adopts_are_reaped(rig: Rig) -> None:
    worker = rig.fork(b"w")
    orphan = ask(
        worker,
        "p = subprocess.run(['sh', '-c', 'setsid sleep 600 >/dev/null & echo $!'],"
        "stdout=subprocess.PIPE); reply = int(p.stdout)",
    )
    rig.until(lambda: os.getsid(orphan) == orphan, "setsid")
    tell(worker, "leave = 0")
    rig.find(Exited)
    assert alive(orphan)  # it left its process group on purpose; it ends with the zygote
    os.kill(orphan, signal.SIGKILL)
    rig.until(lambda: not Path(f"/proc/{orphan}").exists(), "reaping")


def test_32_workers_asked_for_before_the_zygote_is_ready(rig: Rig) -> None:
    big = {"FILL": "x" * 16_000}  # more than the socket holds: some requests wait outside
    workers = [rig.fork(b"%d" % i, big) for i in range(32)]
    rig.until(lambda: len(rig.seen) == 32, "32 forks")
    assert {type(event) for event in rig.seen} == {Forked}
    pids = [ask(worker, "reply = os.getpid()") for worker in workers]
    assert len(set(pids)) == 32
    started = time.monotonic()
    rig.close()
    assert time.monotonic() - started < 2
    assert gone(*pids)


# ---- refusals -------------------------------------------------------------------------------


def test_an_environment_that_cannot_be_is_refused_at_the_call(rig: Rig) -> None:
    for env in ({"": "x"}, {"A=B": "x"}, {"A": "x\0"}, {"A": "x" * (161 << 10)}):
        with pytest.raises(ValueError):
            rig.zygote.fork(b"w", env)
    rig.fork(b"w")
    with pytest.raises(ValueError, match="exists already"):
        rig.zygote.fork(b"w", {})
    rig.find(Forked, b"w")


def test_a_full_machine_refuses_one_worker_and_recovers(rig: Rig) -> None:
    rig.fork(b"1")
    rig.find(Forked, b"1")
    assert rig.zygote.pid is not None
    limits = resource.prlimit(rig.zygote.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(rig.zygote.pid, resource.RLIMIT_NOFILE, (8, limits[1]))
    rig.fork(b"2")
    assert "descriptors" in rig.find(ForkFailed, b"2").reason
    resource.prlimit(rig.zygote.pid, resource.RLIMIT_NOFILE, limits)
    rig.fork(b"3")
    rig.find(Forked, b"3")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "ModuleNotFoundError"),
        ("x = 1", "AttributeError"),
        (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
            "def prepare(): return print",
            "2 threads",
        ),
    ],
)
def test_an_entry_that_cannot_serve_is_reported(
    entry: Path, source: str | None, words: str
) -> None:
    if source is not None:
        (entry / "zygote_bad_entry.py").write_text(source)
    rig = Rig("zygote_bad_entry:prepare")
    try:
        rig.fork(b"w")
        died = rig.find(ZygoteDied)
        assert (died.exit_code, died.signal, died.worker_ids) == (1, None, [b"w"])
        assert words in died.text
    finally:
        rig.close()


# ---- what is left ---------------------------------------------------------------------------


def test_zygote_killed_takes_everything_along_and_can_be_started_again(rig: Rig) -> None:
    worker = rig.fork(b"w")
    forked = rig.find(Forked)
    below = [forked.pid, spawn(worker), spawn(worker, new_session=True)]
    zygote_pid = rig.zygote.pid
    assert zygote_pid is not None
    os.kill(zygote_pid, signal.SIGKILL)
    died = rig.find(ZygoteDied)
    assert (died.exit_code, died.signal, died.worker_ids) == (None, signal.SIGKILL, [b"w"])
    assert gone(*below)
    assert 0 < rig.zygote.swept <= len(below)  # the kernel ends some of them itself
    assert rig.zygote.pid is None
    with pytest.raises(RuntimeError, match="start"):
        rig.zygote.fork(b"x", {})
    worker.close()
    rig.zygote.start()
    again = rig.fork(b"w")
    assert ask(again, "reply = os.getpid()") != forked.pid


def test_close_ends_detached_processes_too(rig: Rig) -> None:
    worker = rig.fork(b"w")
    rig.find(Forked)
    detached = spawn(worker, new_session=True)
    ask(worker, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    zygote_pid = rig.zygote.pid
    started = time.monotonic()
    rig.zygote.close()
    rig.zygote.close()
    assert time.monotonic() - started < 2
    assert not alive(detached)
    assert not Path(f"/proc/{zygote_pid}").exists()


def test_close_is_bounded_when_the_zygote_does_not_run(rig: Rig) -> None:
    worker = rig.fork(b"w")
    pid = rig.find(Forked).pid
    detached = spawn(worker, new_session=True)
    assert rig.zygote.pid is not None
    os.kill(rig.zygote.pid, signal.SIGSTOP)
    started = time.monotonic()
    rig.zygote.close()
    assert time.monotonic() - started < 2.5
    assert gone(pid, detached)


def test_close_right_after_start_leaves_nothing() -> None:
    zygote = Zygote("zygote_test_entry:prepare")
    zygote.start()
    pid = zygote.pid
    channels = [zygote.fork(b"%d" % i, {}) for i in range(3)]
    zygote.close()
    for each in channels:
        each.close()
    assert not Path(f"/proc/{pid}").exists()
    assert zygote.events() == []


def test_raylet_killed_leaves_no_process(entry: Path) -> None:
    script = """
        import select, sys
        from zray.runtime.linux.processes import Zygote
        from zray.runtime.stream import FrameReader, FrameWriter, read_frames
        zygote = Zygote("zygote_test_entry:prepare")
        zygote.start()
        pids = [zygote.pid]
        workers = [zygote.fork(name, {}) for name in (b"1", b"2")]
        for worker in workers:
            worker.task.setblocking(True)
            for new in ("True", "False"):
                FrameWriter(worker.task).send(
                    b"p = subprocess.Popen(['sleep', '600'], start_new_session=" + new.encode()
                    + b"); reply = p.pid"
                )
                (frame,), _ = read_frames(worker.task, FrameReader())
                pids.append(int(bytes(frame)))
        while len(pids) < 7:
            select.select([zygote], [], [])
            pids += [event.pid for event in zygote.events()]
        print(*pids, flush=True)
        sys.stdin.read()
    """
    path = os.pathsep.join([str(entry), str(Path(__file__).parents[2])])
    raylet = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert raylet.stdout is not None and raylet.stdin is not None
    with raylet.stdout, raylet.stdin:
        pids = [int(word) for word in raylet.stdout.readline().split()]
        assert len(pids) == 7
        assert all(map(alive, pids))
        raylet.kill()
        raylet.wait()
        assert gone(*pids)
