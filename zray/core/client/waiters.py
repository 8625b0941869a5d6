"""Who waits for which objects: threads that sleep until all they count is there, and callbacks.

Who waits for whichever come first of many objects (`SomeOf`) is registered with none of them.
"""

from __future__ import annotations

from collections.abc import Callable

from zray.protocol import messages as m


class Waiter:
    """Counts down to zero as what it waits for arrives; ``done`` is called then, if given.

    ``values``: gets each value that it waits for, which then stays, whatever else is let go of.
    ``until_error``: an error is enough; ``failed`` is the object that came with it.
    """

    __slots__ = ("done", "failed", "remaining", "until_error", "values")

    def __init__(
        self,
        done: Callable[[], None] | None = None,
        values: dict[bytes, m.Outcome] | None = None,
        *,
        until_error: bool = False,
    ) -> None:
        self.remaining = 0
        self.done = done
        self.values = values
        self.until_error = until_error
        self.failed: bytes | None = None

    def arrived(self) -> None:
        """One thing less to wait for."""
        self.remaining -= 1
        if not self.remaining and self.done is not None:
            self.done()


class SomeOf(Waiter):
    """Waits for ``remaining`` of the objects in ``missing``, which those that come leave.

    ``whole``: for their values, not only for how their tasks ended.
    """

    __slots__ = ("missing", "whole")

    def __init__(self, missing: set[bytes], count: int, *, whole: bool) -> None:
        super().__init__()
        self.missing = missing
        self.remaining = count
        self.whole = whole


class Waiters:
    """``outcomes``: of the process's references, as far as they are known.

    ``lives``: whether the process has a reference to the object; ``expected``: whether its
    outcome comes without being asked for; ``watch`` asks for it, and ``pull`` for a value that is
    elsewhere.
    """

    def __init__(
        self,
        outcomes: dict[bytes, m.Outcome],
        lives: Callable[[bytes], bool],
        expected: Callable[[bytes], bool],
        watch: Callable[[bytes], None],
        pull: Callable[[bytes], None],
    ) -> None:
        self._outcomes = outcomes
        self._lives = lives
        self._expected = expected
        self._watch = watch
        self._pull = pull
        # With nobody in its list, an object is one that somebody of ``_some`` waits for or did.
        self.values: dict[bytes, list[Waiter]] = {}  # by object whose value they wait for
        self.ends: dict[bytes, list[Waiter]] = {}  # those that need only know how its task ended
        self._some: list[SomeOf] = []
        self.watched: dict[bytes, None] = {}
        self._callbacks = 0  # how many of the waiters are called rather than wait

    def __bool__(self) -> bool:
        return bool(self.values or self.ends)

    def awaited(self) -> bytes:
        """What a thread has been waiting for longest; empty: none waits."""
        for waiting in (self.values, self.ends):
            for oid, waiters in waiting.items():
                if any(one.done is None for one in waiters):
                    return oid
        for some in self._some:
            if some.done is None and some.missing:
                return next(iter(some.missing))
        return b""

    def want_value(self, oid: bytes, waiter: Waiter) -> None:
        """Count ``waiter`` up if the value is not here but can come, and make it come.

        It cannot where the last reference was collected: who asks then is a finalizer.
        """
        outcome = self._outcomes.get(oid)
        if not self._lives(oid) if outcome is None else not outcome.kind & m.LOCATED:
            return
        waiter.remaining += 1
        self.values.setdefault(oid, []).append(waiter)
        self._callbacks += waiter.done is not None
        if outcome is not None:
            self._pull(oid)
        else:
            self._await_outcome(oid)

    def want_located(self, oid: bytes, waiter: Waiter) -> None:
        """The same as ``want_value`` for an object that is known to be with the node."""
        if oid not in self._outcomes:
            self._outcomes[oid] = m.Outcome(oid, m.VALUE | m.LOCATED, 0)
        self.want_value(oid, waiter)

    def want_outcome(self, oid: bytes, waiter: Waiter) -> None:
        """Count ``waiter`` up if it is not known here how the object's task ended, but can be."""
        if oid not in self._outcomes and self._lives(oid):
            waiter.remaining += 1
            self.ends.setdefault(oid, []).append(waiter)
            self._callbacks += waiter.done is not None
            self._await_outcome(oid)

    def want_some(self, oids: list[bytes], waiter: SomeOf) -> None:
        """Make those of ``oids`` come that the waiter misses, until it is forgotten.

        What comes already stays in the tables after that, so a loop of waits asks for each once.
        """
        self._some.append(waiter)
        missing, table = waiter.missing, self.values if waiter.whole else self.ends
        unasked = missing.difference(table)
        for oid in filter(unasked.__contains__, oids) if unasked else ():  # in their order
            outcome = self._outcomes.get(oid)
            if outcome is None and not self._lives(oid):
                missing.remove(oid)
                waiter.arrived()  # nothing of it comes
                continue
            table[oid] = []
            if outcome is not None:
                self._pull(oid)
            else:
                self._await_outcome(oid)

    def forget_some(self, waiter: SomeOf) -> None:
        """It does not wait any more."""
        if waiter in self._some:
            self._some.remove(waiter)

    def _await_outcome(self, oid: bytes) -> None:
        if oid not in self.watched and not self._expected(oid):
            self.watched[oid] = None
            self._watch(oid)

    def wake(self, oid: bytes, outcome: m.Outcome) -> None:
        """The object has come: those who wait for it have one thing less to wait for."""
        for waiter in self.ends.pop(oid, ()) if self.ends else ():
            self._callbacks -= waiter.done is not None
            waiter.arrived()
        elsewhere = outcome.kind & m.LOCATED
        for some in self._some:
            if oid in some.missing and not (elsewhere and some.whole):
                some.missing.remove(oid)
                some.arrived()
        if elsewhere:
            self._pull_if_wanted(oid)
            return
        for waiter in self.values.pop(oid, ()):
            self._callbacks -= waiter.done is not None
            if waiter.values is not None:
                waiter.values[oid] = outcome
            if outcome.kind & m.ERROR and waiter.until_error:
                waiter.failed, waiter.remaining = oid, 0
                continue
            waiter.arrived()

    def _pull_if_wanted(self, oid: bytes) -> None:
        if self.values.get(oid) or any(oid in some.missing for some in self._some):
            self._pull(oid)
        else:
            self.values.pop(oid, None)  # who has waited for it has not the time

    def let_down(self, oid: bytes) -> None:
        """The last reference was collected, so nothing comes: who waits is a finalizer."""
        for some in self._some:
            if oid in some.missing:
                some.missing.remove(oid)
                some.arrived()
        for table in (self.values, self.ends):
            for waiter in table.pop(oid, ()):
                self._callbacks -= waiter.done is not None
                waiter.arrived()

    def forget(self, oids: list[bytes], waiter: Waiter) -> None:
        """It does not wait for these any more."""
        for table in (self.values, self.ends):
            for oid in oids:
                waiting = table.get(oid)
                if waiting is not None and waiter in waiting:
                    waiting.remove(waiter)
                    self._callbacks -= waiter.done is not None
                    if not waiting and not self._some:
                        del table[oid]

    def release_all(self) -> None:
        """Nothing will come any more."""
        for table in (self.values, self.ends):
            for waiting in [*table.values()]:
                for waiter in waiting:
                    self._callbacks -= waiter.done is not None
                    waiter.arrived()
            table.clear()
        for some in self._some:
            some.remaining = 0
        self._some.clear()

    def has_callbacks(self) -> bool:
        """Whether somebody is to be called when a value arrives, rather than waits for it."""
        return self._callbacks > 0
