"""What this process has recorded in metrics, and the thread that tells it to the cluster.

Owns the numbers of all metrics of the process. There is no thread before something is recorded.
What is told are absolute values, so that a message that is lost is made good by the next.
"""

from __future__ import annotations

import os
import threading
import warnings
from bisect import bisect_left
from typing import NamedTuple

from zray import limits
from zray.protocol import messages as m
from zray.runtime import session

FIRST_S = 0.1  # what follows in this time goes along
AGAIN_S = 5.0  # it is looked whether there is another head by now


class Definition(NamedTuple):
    """``boundaries``: of a histogram."""

    name: str
    kind: int
    description: str
    keys: tuple[str, ...]
    boundaries: tuple[float, ...]


class Series:
    """The numbers of one metric. By the values of its tags: a value, and counts of a histogram."""

    __slots__ = ("_registry", "changed", "definition", "values")

    def __init__(self, registry: Registry, definition: Definition) -> None:
        self._registry = registry
        self.definition = definition
        self.values: dict[tuple[str, ...], tuple[float, list[int]]] = {}
        self.changed: dict[tuple[str, ...], None] = {}

    def add(self, tags: tuple[str, ...], value: float) -> None:
        """A counter rises."""
        with self._registry.lock:
            known = self.values.get(tags)
            if known is not None or self._registry.room(self.definition.name):
                self.values[tags] = (value if known is None else known[0] + value, [])
                self._has_changed(tags)

    def set(self, tags: tuple[str, ...], value: float) -> None:
        """A gauge changes."""
        with self._registry.lock:
            if tags in self.values or self._registry.room(self.definition.name):
                self.values[tags] = (value, [])
                self._has_changed(tags)

    def observe(self, tags: tuple[str, ...], value: float) -> None:
        """A histogram has one value more."""
        bounds = self.definition.boundaries
        with self._registry.lock:
            known = self.values.get(tags)
            if known is None and not self._registry.room(self.definition.name):
                return
            total, counts = known or (0.0, [0] * (len(bounds) + 1))
            counts[bisect_left(bounds, value)] += 1
            self.values[tags] = (total + value, counts)
            self._has_changed(tags)

    def _has_changed(self, tags: tuple[str, ...]) -> None:
        self.changed[tags] = None
        if not self._registry.due:
            self._registry.remind()

    def told(self, *, whole: bool) -> m.UserMetric | None:
        """What has changed, or all of it; None: nothing."""
        tags = [*self.values] if whole else [*self.changed]
        self.changed.clear()
        if not tags:
            return None
        found = [(one, *self.values[one]) for one in tags]
        series = [m.UserSeries([*one], value, [*counts]) for one, value, counts in found]
        name, kind, description, keys, bounds = self.definition
        return m.UserMetric(name, kind, description, [*keys], [*bounds], series)


class _Teller:
    """The thread. It tells at once when something is recorded, then once in a while."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zray-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if self.wake.wait(AGAIN_S):
                self.wake.clear()
                self._stopped.wait(FIRST_S)
            participant = session.current()
            if participant is not None and not self._stopped.is_set():
                participant.tell_unsaid()
                self._stopped.wait(limits.RECORDED_S - FIRST_S)

    def stop(self) -> None:
        """Nobody is told any more."""
        self._stopped.set()
        self.wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(limits.STOP_S)


class Registry:
    """Of one process. ``due``: the thread is going to tell."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nothing has been recorded, and nobody tells."""
        self.lock = threading.RLock()  # a finalizer may record something
        self.due = False
        self._metrics: dict[str, Series] = {}
        self._count = 0
        self._left_out = 0
        self._told_to: int | None = None  # of the epoch of a head; None: to nobody of now
        self._follows = False
        self._teller: _Teller | None = None

    def metric(self, definition: Definition) -> Series | None:
        """The numbers of a metric, which may be there already; None: another has its name."""
        with self.lock:
            known = self._metrics.setdefault(definition.name, Series(self, definition))
            mine, other = known.definition, definition
            same = mine.kind == other.kind and mine.keys == other.keys
            return known if same and mine.boundaries == other.boundaries else None

    def room(self, name: str) -> bool:
        """Whether one more series may be; it is counted."""
        if self._count < limits.SERIES_PROCESS_MAX:
            self._count += 1
            return True
        self._left_out += 1
        if not self.due:
            self.remind()
        if self._left_out == 1:
            warnings.warn(
                f"metric {name!r} would be series number {limits.SERIES_PROCESS_MAX + 1} of this "
                "process, and is not recorded, nor are others that are new; tags should have few "
                "values: no ids, no times",
                stacklevel=4,
            )
        return False

    # ---- telling -----------------------------------------------------------------------------

    def remind(self) -> None:
        """Something is to be told. With the lock held."""
        self.due = True
        if not self._follows:
            self._follows = True
            session.unsaid.append(self.take)
            session.followers.append(self._follow)
        if self._teller is None and session.current() is not None:
            self._teller = _Teller()
        if self._teller is not None:
            self._teller.wake.set()

    def _follow(self, participant: object) -> None:
        """The process has joined a cluster, or leaves it: then it tells the rest by itself."""
        with self.lock:
            teller, self._teller = self._teller, None
            if participant is not None:
                self._told_to = None
            if participant is not None and self._metrics:
                self.remind()
        if teller is not None:
            teller.stop()

    def take(self, epoch: int) -> list[m.Message]:
        """What the head of that epoch has not been told; it is about to be."""
        with self.lock:
            whole = self._told_to != epoch
            if not (whole or self.due):
                return []
            self._told_to = epoch
            self.due = False
            found = [one.told(whole=whole) for one in self._metrics.values()]
            told = [one for one in found if one is not None]
            return [m.Recorded(0, told, self._left_out)] if told or self._left_out else []


_registry = Registry()


def metric(definition: Definition) -> Series | None:
    """The numbers of a metric of this process; None: it has another of that name."""
    return _registry.metric(definition)


def _after_fork() -> None:
    """A child has no connection to a cluster, and none of its parent's threads."""
    _registry.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
