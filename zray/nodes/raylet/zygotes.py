"""The processes from which a node forks workers: its own, and one for each other interpreter.

Owns which worker came from which. The node's own always runs; the others are started with their
first worker, and ended when they have had none for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from zray import limits
from zray.runtime.linux.processes import (
    Event,
    Exited,
    ForkFailed,
    Interpreter,
    WorkerChannels,
    Zygote,
    ZygoteDied,
)
from zray.runtime.loop import Loop

OWN = ""


class _Kept:
    def __init__(self, zygote: Zygote, now: float) -> None:
        self.zygote = zygote
        self.fd = zygote.fileno()
        self.workers: set[bytes] = set()
        self.rests_since = now


class Zygotes:
    """``own``: one that has been started, of this interpreter. ``environment``: what each has more
    than this process. ``heard``: takes what each tells, and whose interpreter's it is."""

    def __init__(
        self,
        loop: Loop,
        own: Zygote,
        environment: dict[str, str],
        heard: Callable[[str, Event], None],
    ) -> None:
        self._loop = loop
        self._own = own
        self._environment = environment
        self._heard = heard
        self._kept: dict[str, _Kept] = {}
        self._of: dict[bytes, str] = {}  # by worker
        self._swept = 0  # by those that are no more

    @property
    def swept(self) -> int:
        """How many processes had to be found and killed after a zygote's death."""
        others = (kept.zygote for name, kept in self._kept.items() if name != OWN)
        return self._swept + self._own.swept + sum(zygote.swept for zygote in others)

    @property
    def pid(self) -> int | None:
        """Of the own one; None: it does not run."""
        return self._own.pid

    def watch_own(self) -> None:
        """Listen to the own one, which has been started."""
        self._watch(OWN, self._own)

    def start_own(self) -> None:
        """Start it again.

        Raises:
            OSError: the machine cannot.
        """
        self._own.start()
        self.watch_own()

    def _watch(self, name: str, zygote: Zygote) -> None:
        kept = self._kept[name] = _Kept(zygote, self._loop.now())
        self._loop.watch(kept.fd, partial(self._read, name, kept))

    def fork(
        self, worker_id: bytes, env: dict[str, str], name: str, interpreter: Interpreter | None
    ) -> WorkerChannels:
        """Have a worker forked, of the own interpreter if that is None.

        Raises:
            As ``Zygote.fork``.
        """
        if name not in self._kept and interpreter is not None:
            zygote = Zygote(extra_env=self._environment, interpreter=interpreter)
            zygote.start()
            self._watch(name, zygote)
        kept = self._kept.get(name)
        channels = (self._own if kept is None else kept.zygote).fork(worker_id, env)
        if kept is not None:
            kept.workers.add(worker_id)
        self._of[worker_id] = name
        return channels

    def kill(self, worker_id: bytes) -> None:
        """End its process group now."""
        kept = self._kept.get(self._of.get(worker_id, OWN))
        if kept is not None:
            kept.zygote.kill(worker_id)

    def _read(self, name: str, kept: _Kept) -> None:
        for event in kept.zygote.events():
            if isinstance(event, ZygoteDied):
                self._loop.unwatch(kept.fd)  # it is closed: the next one may have its number
                self._swept += kept.zygote.swept if name != OWN else 0
                del self._kept[name]
                for worker_id in event.worker_ids:
                    self._of.pop(worker_id, None)
            elif isinstance(event, Exited | ForkFailed):
                self._of.pop(event.worker_id, None)
                kept.workers.discard(event.worker_id)
                kept.rests_since = self._loop.now()
            self._heard(name, event)

    def tend(self, now: float) -> None:
        """Once a turn: say what could not be said before, and end those that nobody needs."""
        for name, kept in [*self._kept.items()]:
            kept.zygote.flush()
            rests = name != OWN and not kept.workers
            if rests and now - kept.rests_since > limits.ZYGOTE_REST_S:
                self._end(name, kept)

    def forget(self, name: str) -> None:
        """That interpreter is about to be removed, or built anew."""
        kept = self._kept.get(name)
        if kept is not None and name != OWN and not kept.workers:
            self._end(name, kept)

    def _end(self, name: str, kept: _Kept) -> None:
        self._loop.unwatch(kept.fd)
        del self._kept[name]
        kept.zygote.close()

    def redirect(self, fd: int) -> None:
        """What they say goes to this file from now on."""
        for kept in self._kept.values():
            kept.zygote.redirect(fd)

    def close(self) -> None:
        """End all, and every worker."""
        for kept in self._kept.values():
            kept.zygote.close()
        self._own.close()
