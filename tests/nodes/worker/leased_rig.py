"""A real worker between a raylet and a submitter that are played by hand."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.core.benches import UNIT, identity
from zray.ids import object_id
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import serialization
from zray.runtime.linux import direct
from zray.runtime.linux.direct import DirectLink, TaskQueue
from zray.runtime.linux.processes import Exited, Forked, Zygote
from zray.runtime.references import ObjectRef
from zray.runtime.stream import FrameReader, FrameWriter, read_available

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
DEADLINE_S = 15.0
JOB, NODE, DRIVER = identity("job"), identity("node"), identity("driver")
CPU = [("CPU", UNIT)]


class Submitter:
    """One connection to the worker, for a lease."""

    def __init__(self, rig: Rig, lease_id: bytes, *, greets: bytes = b"") -> None:
        self.rig = rig
        link = direct.connect(rig.worker_id)
        assert link is not None
        self.link: DirectLink = link
        self.queue = TaskQueue.make()
        self.queue.hand_over(link)
        self.said: list[m.Message] = []
        self.closed = False
        self.say(m.Grant(0, greets or lease_id, JOB, DRIVER, CPU))

    def say(self, *messages: m.Message) -> None:
        for payload in codec.encode_local(messages):
            self.link.writer.send(payload)

    def define(self, function: Callable[..., Any], num_returns: int = 1) -> bytes:
        """Tell of a function; the id of its template."""
        blob = serialization.dumps_function(function, False)
        template_id = identity(function.__name__)
        self.say(
            m.Export(0, blob.function_id, function.__name__, blob.blob),
            m.Template(0, template_id, blob.function_id, function.__name__, CPU, num_returns, 3),
        )
        return template_id

    def put(self, *tasks: m.Assignment) -> None:
        """One packet."""
        (payload,) = codec.encode_local([m.Tasks(0, list(tasks))])
        assert self.queue.put(payload)

    def read(self) -> None:
        frames, self.closed = read_available(self.link.socket, self.link.reader)
        for frame in frames:
            self.said += codec.decode(frame).messages

    def hears(self, kind: type[T]) -> T:
        """The next message of that kind."""
        return self.rig.wait(lambda: _taken(self.said, kind), f"{kind.__name__} on the link")

    def done(self, name: str) -> m.TaskDone:
        """The end of a task, which comes alone."""
        (done,) = self.hears(m.Done).tasks
        assert done.task_id == identity(name)
        return done

    def close(self) -> None:
        self.link.close()
        self.queue.close()


class Rig:
    """``raylet``: what the worker has said to that."""

    def __init__(self) -> None:
        self.worker_id = os.urandom(16)
        self.zygote = Zygote(extra_env={"PYTHONUNBUFFERED": "1"})
        self.zygote.start()
        self.channels = self.zygote.fork(self.worker_id, {})
        self.raylet: list[m.Message] = []
        self.submitters: list[Submitter] = []
        self.answers = True  # the head answers SYNC
        self.pid = 0
        self.exited: Exited | None = None
        self._reader = FrameReader()
        self._task = FrameWriter(self.channels.task)
        self._control = FrameWriter(self.channels.control)
        info = m.JobInfo("program", "/", [str(ROOT)], "machine", "host", 1)
        self.tell(m.Setup(0, JOB, info, NODE, "n1", True, "machine", [], ""))

    # ---- the raylet ------------------------------------------------------------------------

    def tell(self, *messages: m.Message) -> None:
        for payload in codec.encode_local(messages):
            self._task.send(payload)

    def control(self, message: m.Message) -> None:
        for payload in codec.encode_local([message]):
            self._control.send(payload)

    def grant(self, name: str) -> bytes:
        lease_id = identity(name)
        self.tell(m.Grant(0, lease_id, JOB, DRIVER, CPU))
        leased = self.hears(m.Leased)
        assert leased.lease == m.HeldLease(lease_id, JOB, DRIVER, CPU, self.worker_id)
        return lease_id

    def lease(self, name: str) -> Submitter:
        """A lease and its submitter."""
        return self.connect(self.grant(name))

    def connect(self, lease_id: bytes, **options: Any) -> Submitter:
        submitter = Submitter(self, lease_id, **options)
        self.submitters.append(submitter)
        return submitter

    def hears(self, kind: type[T]) -> T:
        """The next message of that kind to the raylet."""
        return self.wait(lambda: _taken(self.raylet, kind), f"{kind.__name__} to the raylet")

    # ---- both ------------------------------------------------------------------------------

    def step(self, timeout_s: float = 0.01) -> None:
        """Read what the worker has said."""
        open_links = [one for one in self.submitters if one.link.fileno() >= 0 and not one.closed]
        sources = [self.channels.task, self.zygote, *(one.link for one in open_links)]
        select.select(sources, [], [], timeout_s)
        for submitter in open_links:
            submitter.read()
        for event in self.zygote.events():
            if isinstance(event, Forked):
                self.pid = event.pid
            elif isinstance(event, Exited):
                self.exited = event
        frames, _ = read_available(self.channels.task, self._reader)
        for frame in frames:
            for message in codec.decode(frame).messages:
                self.raylet.append(message)
                if isinstance(message, m.Sync) and self.answers:
                    self.tell(m.Synced(0, message.seq))

    def wait(self, probe: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + DEADLINE_S
        while (found := probe()) is None or found is False:
            self.step()
            heard = [one.said for one in self.submitters]
            assert time.monotonic() < deadline, (what, self.raylet, heard)
        return found

    def stay(self, seconds: float) -> None:
        """Go on reading for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.step()

    def started(self) -> int:
        return self.channels.page.count

    def close(self) -> None:
        self.zygote.close()
        self.channels.close()
        for submitter in self.submitters:
            submitter.close()


def _taken(messages: list[m.Message], kind: type[T]) -> T | None:
    for message in messages:
        if isinstance(message, kind):
            messages.remove(message)
            return message
    return None


def task(name: str, template_id: bytes, *args: Any, attempt: int = 1) -> m.Assignment:
    arguments = serialization.dumps_arguments(args, {}, ObjectRef)
    spec = m.TaskSpec(
        *(identity(name), template_id, arguments.data, arguments.dependencies, arguments.nested),
    )
    return m.Assignment(attempt, JOB, spec)


def result(done: m.TaskDone) -> Any:
    """The value of its only return."""
    (outcome,) = done.results
    assert outcome.object_id == object_id(done.task_id) and outcome.kind == m.VALUE
    return serialization.loads(outcome.value)
