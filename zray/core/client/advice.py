"""Advice to the user of a driver, once for each known way to be slow without need.

Owns what was seen so far that may lead to it. Of tasks it is told nothing: it looks at what others
count, now and then, and at functions and arguments that are large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from zray import limits

GET_IN_LOOP = "ZR-6001"
LARGE_CLOSURE = "ZR-6002"
SAME_ARGUMENT = "ZR-6003"
TINY_TASKS = "ZR-6004"
MANY_REFERENCES = "ZR-6005"
_OFF = "(ZRAY_ADVICE=0 turns advice off)"


class Seen(NamedTuple):
    """What a driver has counted. ``waits``: calls that blocked; ``finished``: tasks that have ended
    at leased workers; ``in_flight``: tasks without an outcome; ``references``: objects that it has
    references to."""

    waits: int
    finished: int
    in_flight: int
    references: int


class Advice:
    """``say`` gets code and text of each. ``silent``: the user wants none."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.silent = False
        self._given: set[str] = set()
        self._before = Seen(0, 0, 0, 0)
        self._one_by_one = 0  # tasks in a row, each waited for before the next
        self._argument: object = None  # the last large one, in short
        self._alike = 0  # how often in a row
        self._digests: list[bytes] = []  # of those, once they are many

    def wants(self, code: str) -> bool:
        """Whether this one may still be given."""
        return not self.silent and code not in self._given

    def _give(self, code: str, text: str) -> None:
        self._given.add(code)
        self._say(code, f"{text} {_OFF}")

    def function(self, name: str, size: int) -> None:
        """A function was sent, with what it captures."""
        if size >= limits.ADVICE_FUNCTION_BYTES and self.wants(LARGE_CLOSURE):
            self._give(
                LARGE_CLOSURE,
                f"the function {name} captures {size / 2**20:.1f} MiB, so each worker that runs it "
                "loads as much; put large values with zray.put() and pass the references.",
            )

    def argument(self, size: int, sample: object, digest: Callable[[], bytes]) -> None:
        """A large argument was passed by value. ``sample``: a part of it; ``digest`` of the whole
        takes long, and is asked for only where the samples are alike."""
        if not self.wants(SAME_ARGUMENT):
            return
        if (size, sample) != self._argument:
            self._argument, self._alike, self._digests = (size, sample), 1, []
            return
        self._alike += 1
        if self._alike < limits.ADVICE_SAME_ARGUMENTS:
            return
        self._digests.append(digest())
        if len({*self._digests}) > 1:
            self._alike, self._digests = 1, []  # only alike: it is a while until the next look
        elif len(self._digests) == limits.ADVICE_DIGESTS:
            self._give(
                SAME_ARGUMENT,
                f"the same argument of {size / 2**20:.1f} MiB was passed by value "
                f"{self._alike} times, and copied each time; ref = zray.put(value) once, and pass "
                "ref.",
            )

    def look(self, seen: Seen, tiny: Callable[[], Iterable[str]]) -> None:
        """Once in a while. ``tiny``: names of functions of which thousands have run, and none for
        as long as zray takes for each."""
        before, self._before = self._before, seen
        self._look_at_waits(seen.waits - before.waits, seen.finished - before.finished, seen)
        most = limits.ADVICE_REFERENCES
        if seen.references >= most and self.wants(MANY_REFERENCES):
            self._give(
                MANY_REFERENCES,
                f"this program holds {seen.references:,} references, each of which keeps its value "
                "and some memory here and in the head; take results with zray.wait() in batches, "
                "and drop the references that are done.",
            )
        if self.wants(TINY_TASKS) and (names := [*tiny()]):
            self._give(
                TINY_TASKS,
                f"thousands of tasks of {names[0]} took less than "
                f"{limits.ADVICE_TINY_S * 1e6:.0f} us each, so most of the time goes into passing "
                "them around; let each do more, such as a list of items.",
            )

    def _look_at_waits(self, waits: int, finished: int, seen: Seen) -> None:
        alone = finished >= limits.ADVICE_LOOK_TASKS and seen.in_flight <= 1
        if not alone or not 0.9 * finished <= waits <= 1.1 * finished:
            self._one_by_one = 0
            return
        self._one_by_one += finished
        if self._one_by_one > finished and self.wants(GET_IN_LOOP):
            self._give(
                GET_IN_LOOP,
                f"the last {self._one_by_one:,} tasks were each waited for before the next was "
                "submitted, so never more than one ran at a time; where they do not need each "
                "other's results, submit all first, then zray.get() the list.",
            )
