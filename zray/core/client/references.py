"""The part of the Client that says what its process refers to.

Owns the counts of its references, what the cluster knows that it holds, holds and drops that are
still to be told, and which values are its own: not known outside of this process. Values
themselves are among the client's outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from zray import limits
from zray.core.client.actor_caller import ActorCaller
from zray.core.client.call_results import CallResults
from zray.core.client.near_values import NearValues
from zray.core.client.unasked import UnaskedErrors
from zray.core.client.values import ClientValues, without_value
from zray.core.client.waiters import Waiters
from zray.core.identity import Identity
from zray.ids import object_id, task_of
from zray.protocol import messages as m


class ClientReferences:
    """``remote``: as for the client.

    Args:
        outcomes: those known here, of these references.
        unresolved: the tasks of this process that have no outcome.
        results: of calls that this process has made.
        actors: that it has called, or has a handle of.
        handle_dropped: there is no handle of the actor any more.
        hurry: submits a task now, if that was not done yet.
        unasked: hears of errors that are dropped.
    """

    def __init__(
        self,
        *,
        me: Identity,
        outbox: list[m.Message],
        outcomes: dict[bytes, m.Outcome],
        unresolved: dict[bytes, m.TaskSpec],
        results: CallResults,
        actors: dict[bytes, ActorCaller],
        waiters: Waiters,
        values: ClientValues,
        near: NearValues,
        handle_dropped: Callable[[bytes], None],
        hurry: Callable[[bytes], None],
        unasked: UnaskedErrors,
        remote: bool,
    ) -> None:
        self._me = me
        self._outbox = outbox
        self._outcomes = outcomes
        self._unresolved = unresolved
        self._results = results
        self._actors = actors
        self._waiters = waiters
        self._values = values
        self._near_values = near
        self._handle_dropped = handle_dropped
        self._hurry = hurry
        self._unasked = unasked
        self._remote = remote
        self.counts: dict[bytes, int] = {}
        self.held: dict[bytes, None] = {}  # the head knows that this process holds it
        self.own: dict[bytes, None] = {}  # not known outside this process
        self.own_handle = b""  # of the actor that this process is: it does not keep itself alive
        self.new_holds: dict[bytes, None] = {}
        self.new_drops: dict[bytes, None] = {}
        self._later_drops: dict[bytes, dict[bytes, None]] = {}  # by tasks not yet submitted
        self._near: dict[bytes, None] = {}  # of its own, what is with the node's store
        self._covered: dict[bytes, None] = {}  # held by the running task
        self.unpublished: dict[bytes, None] = {}  # results of which the node may know alone

    # ---- counting --------------------------------------------------------------------------

    def add(self, oid: bytes) -> None:
        """A reference object was made in this process."""
        count = self.counts.get(oid, 0)
        self.counts[oid] = count + 1
        if count or oid in self.held or oid in self.own or self._results.is_private(oid):
            return
        if self._undrop(oid):
            self.held[oid] = None
        elif self._results.is_promised(oid):  # a HOLD would say that it is there
            self.adopt(oid, count=False)
            self._outbox.append(m.Promise(0, self._me.process_id, oid))
        elif oid not in self._covered and oid != self.own_handle:
            self.held[oid] = None
            self.new_holds[oid] = None

    def remove(self, oid: bytes) -> None:
        """A reference object of this process was collected."""
        contained = self._remove(oid)
        if contained:  # however deep it goes
            going = [*contained]
            while going:
                going += self._remove(going.pop())

    def _remove(self, oid: bytes) -> list[bytes]:
        """Returns the references that went with the last one to this object."""
        count = self.counts.get(oid, 0) - 1
        if count > 0:
            self.counts[oid] = count
            return []
        self.counts.pop(oid, None)
        if self._actors:
            self._handle_dropped(oid[:16])
        if oid in self._waiters.values or oid in self._waiters.ends:
            self._waiters.let_down(oid)
        self._values.lost.pop(oid, None)
        outcome = self._outcomes.pop(oid, None)
        near = self._near_values
        if outcome is not None:
            if outcome.kind == m.ERROR or self._unasked.passed:
                self._unasked.dropped(outcome)
            if type(outcome.value) is not bytes or oid in near.reached:
                near.dropped(oid)
        if oid in self.own:
            del self.own[oid]
            if self._near.pop(oid, 0) is None and self._values.near is not None:
                self._values.near.unput(oid)
            return outcome.contained if outcome is not None else []
        if oid in self.held:
            del self.held[oid]
            self.unpublished.pop(oid, None)
            if oid in self.new_holds:
                del self.new_holds[oid]
            else:
                self.new_drops[oid] = None
        return []

    def came_unwanted(self, outcome: m.Outcome, *, again: bool) -> None:
        """An outcome came whose last reference was collected before; ``again``: perhaps before."""
        if not again:
            self._unasked.dropped(outcome)
        else:
            self._unasked.passed.pop(outcome.object_id, None)

    def passed_on(self, object_ids: Iterable[bytes]) -> None:
        """Others get these, who see to their errors or fail with them."""
        if self._unasked.warn is not None:
            for oid in object_ids:
                awaited = task_of(oid) in self._unresolved or oid in self._results.awaited
                self._unasked.passed_on(oid, awaited=awaited)

    def __contains__(self, oid: bytes) -> bool:
        """Whether a reference to the object lives in this process."""
        return oid in self.counts

    def count(self, oid: bytes) -> None:
        """A reference of this process to an object that the cluster does not know of."""
        self.counts[oid] = 1

    # ---- held without a message of its own --------------------------------------------------

    def hold_returns(self, returns: list[bytes]) -> None:
        """A task is submitted, which makes this process a holder; each has one reference."""
        for oid in returns:
            self.counts[oid] = 1
            self.held[oid] = None
            if not self._remote:
                self.unpublished[oid] = None

    def entrust(self, returns: list[bytes]) -> None:
        """Results that were this process's own are those of a task to be submitted."""
        for oid in returns:
            del self._results.awaited[oid]
            self._results.take_promise(oid)
            if oid in self.counts:
                self.held[oid] = None
            else:
                self.new_drops[oid] = None

    def drop_again(self, oid: bytes) -> None:
        """A message that was sent again may have made this process a holder once more."""
        if oid not in self.held:
            self.new_drops[oid] = None

    def adopt(self, oid: bytes, *, count: bool = True) -> None:
        """The message that names the object makes this process a holder of it."""
        self.held[oid] = None
        self._undrop(oid)
        if count:
            self.counts[oid] = self.counts.get(oid, 0) + 1

    def begin_task(self, nested: list[bytes]) -> None:
        """A task starts whose arguments contain these references: the task holds them."""
        self._covered = dict.fromkeys(nested)

    def end_task(self) -> list[bytes]:
        """The task ends; returns the references of its arguments that this process keeps."""
        borrowed = []
        for oid in self._covered:
            if oid in self.counts and oid not in self.held:
                self.held[oid] = None
                borrowed.append(oid)
        self._covered = {}
        return borrowed

    # ---- values of this process's own --------------------------------------------------------

    def is_new(self, oid: bytes) -> bool:
        """Whether nothing here is left of an object of that id."""
        known = oid in self.counts or oid in self.held or oid in self.own
        return not (known or oid in self.new_drops)

    def put(self, value: bytes, contained: list[bytes], oid: bytes = b"") -> bytes:
        """Keep a value here until its reference leaves this process; its id (counted here).

        ``oid``: which that is to be, if it is not to be a new one.
        """
        oid = oid or object_id(self._me.new_task())
        self._keep_own(m.Outcome(oid, m.VALUE, len(value), value, contained))
        return oid

    def put_error(self, data: bytes) -> bytes:
        """The same for an error."""
        oid = object_id(self._me.new_task())
        self._keep_own(m.Outcome(oid, m.ERROR, len(data), data))
        return oid

    def put_near(self, outcome: m.Outcome) -> bytes:
        """The same for a value that was written to the node's shared memory."""
        self._near[outcome.object_id] = None
        self._keep_own(outcome)
        return outcome.object_id

    def _keep_own(self, outcome: m.Outcome) -> None:
        oid = outcome.object_id
        self._outcomes[oid] = outcome
        self.counts[oid] = 1
        self.own[oid] = None
        for inner in outcome.contained:
            self.add(inner)

    def publish(self, object_ids: list[bytes]) -> None:
        """References to these objects leave this process: the cluster must know them."""
        self.passed_on(object_ids)
        levels = [iter(object_ids)]
        above: list[m.Outcome] = []  # they go out once what they contain has
        while levels:
            oid = next(levels[-1], None)
            if oid is not None:
                if oid in self.own:
                    above.append(self._outcomes[oid])
                    self.passed_on(above[-1].contained)
                    levels.append(iter(above[-1].contained))
                    del self.own[oid]
                    self.held[oid] = None
                else:
                    self._tell_of(oid)
                continue
            levels.pop()
            if above:
                outcome = above.pop()
                self._put_out(outcome)
                for inner in outcome.contained:
                    self.remove(inner)  # from now on the object itself holds it

    def _tell_of(self, oid: bytes) -> None:
        """A reference leaves this process to what is no value of its own."""
        if oid in self._results.awaited:
            self._promise(oid)
        elif oid in self.unpublished:
            del self.unpublished[oid]
            self._hurry(task_of(oid))
            self._outbox.append(m.Publish(0, oid))

    def publish_arguments(self, spec: m.TaskSpec) -> None:
        """The same for what a task refers to; its node finds by itself what it knows alone."""
        for oids in (spec.dependencies, spec.nested):
            if oids:
                self.publish([oid for oid in oids if oid not in self.unpublished])

    def _promise(self, oid: bytes) -> None:
        """A reference to a result that is not there yet leaves this process."""
        if oid not in self._results.promised:
            self._results.promised[oid] = None
            self.adopt(oid, count=False)
            self._outbox.append(m.Promise(0, self._me.process_id, oid))

    def _put_out(self, outcome: m.Outcome) -> None:
        oid, near = outcome.object_id, self._values.near
        if oid in self._near and near is not None:
            del self._near[oid]
            place = near.published(oid) if self._remote else b""  # a worker's knows
            self._outbox.append(m.Put(0, self._me.process_id, without_value(outcome), place))
            return
        if self._remote:
            self._values.served[oid] = outcome
        self._outbox.append(m.Put(0, self._me.process_id, self._as_published(outcome)))

    def _as_published(self, outcome: m.Outcome) -> m.Outcome:
        if self._remote and len(outcome.value) > limits.INLINE_BYTES_MAX:
            return without_value(outcome)
        return outcome

    def take_result(self, outcome: m.Outcome, *, promised: bool) -> None:
        """The result of a call is here, and only here. ``promised``: others have heard of it."""
        oid = outcome.object_id
        wanted = oid in self.counts
        if wanted:
            self._outcomes[oid] = outcome
        if promised:
            self.publish(outcome.contained)
            self._put_out(outcome)  # which holds it
            if wanted:
                self.held[oid] = None
            else:
                self.new_drops[oid] = None
                self._unasked.passed.pop(oid, None)
        elif wanted:
            self.own[oid] = None
            for inner in outcome.contained:
                self.add(inner)
        elif outcome.kind == m.ERROR or self._unasked.passed:
            self._unasked.dropped(outcome)
        self._waiters.wake(oid, outcome)

    def take_located(self, outcome: m.Outcome, *, promised: bool) -> None:
        """The result of a call is with the node that made it, which has kept the promise."""
        oid = outcome.object_id
        wanted = oid in self.counts
        if wanted:
            self._outcomes[oid] = outcome
            self.held[oid] = None
        elif self._unasked.passed:
            self._unasked.dropped(outcome)
        if wanted or promised:
            self.new_holds[oid] = None
        if promised and not wanted:
            self.new_drops[oid] = None
        self._waiters.wake(oid, outcome)

    def take_back(self, outcome: m.Outcome, *, submitted: bool = False) -> None:
        """The return of a task that will not be submitted: the cluster never hears of it.

        ``submitted``: it has, and no more of it.
        """
        oid = outcome.object_id
        self.unpublished.pop(oid, None)
        if not submitted:
            self._undrop(oid)
        if oid in self.counts:
            del self.held[oid]
            self.own[oid] = None
            self._outcomes[oid] = outcome
            self._waiters.wake(oid, outcome)
        else:
            self._unasked.passed.pop(oid, None)

    def rescue(self, own: list[m.Outcome], told: list[bytes]) -> None:
        """The node is gone that had these values of this process's own.

        ``told``: those of which the cluster knows. They are served from here now.
        """
        for outcome in own:
            oid = outcome.object_id
            if self._near.pop(oid, 0) is None or oid in self._outcomes:
                self._outcomes[oid] = outcome
                self._waiters.wake(oid, outcome)
        values = {outcome.object_id: outcome for outcome in own}
        for oid in told if self._remote else ():
            outcome = values[oid]
            self._values.served[oid] = outcome
            self._outbox.append(m.Put(0, self._me.process_id, self._as_published(outcome)))
            if oid not in self.held:
                self.new_drops[oid] = None  # that made this process a holder

    # ---- telling ---------------------------------------------------------------------------

    def flush_holds(self) -> None:
        """Tell what this process holds since the last time."""
        if self.new_holds:
            joined, self.new_holds = b"".join(self.new_holds), {}
            self._outbox.append(m.Hold(0, self._me.process_id, joined))

    def drop_some(self, later: Collection[bytes]) -> None:
        """Tell drops, but for those of tasks submitted ``later``: their SUBMIT comes first."""
        some: list[bytes] = []
        early: list[bytes] = []
        for oid in self.new_drops:
            if later and task_of(oid) in later:
                early.append(oid)
                continue
            some.append(oid)
            if len(some) >= limits.DROPS_MAX:
                break
        for oid in (*some, *early):
            del self.new_drops[oid]
        for oid in early:
            self._later_drops.setdefault(task_of(oid), {})[oid] = None
        if some:
            self._outbox.append(m.Drop(0, self._me.process_id, b"".join(some)))

    def submitted(self, specs: list[m.TaskSpec]) -> None:
        """These tasks are: what was dropped of their returns can be told."""
        if self._later_drops:
            for spec in specs:
                self.new_drops.update(self._later_drops.pop(spec.task_id, {}))

    def _undrop(self, oid: bytes) -> bool:
        """A drop that has not been told is not to be; False: there is none."""
        if oid in self.new_drops:
            del self.new_drops[oid]
            return True
        later = self._later_drops.get(task_of(oid)) if self._later_drops else None
        if later is None or later.pop(oid, False) is not None:
            return False
        if not later:
            del self._later_drops[task_of(oid)]
        return True

    def serve_held(self) -> None:
        """Another head knows no value of before; those that are here it can have from here."""
        for oid in self.held:
            if task_of(oid) in self._unresolved:
                continue  # one of several returns; submitted again, the task brings all of them
            outcome = self._outcomes.get(oid)
            if outcome is None or outcome.kind & m.LOCATED or oid in self._values.lost:
                continue
            if type(outcome.value) is bytes:
                self._values.served[oid] = outcome

    def resume(self, later: Collection[bytes]) -> None:
        """All that is held, for a new session, but for returns of tasks submitted ``later``."""
        self.new_holds.clear()
        self.new_drops = {oid: None for oid in self.new_drops if task_of(oid) in later}
        held = [oid for oid in self.held if task_of(oid) not in later]
        self._outbox.append(m.Hold(0, self._me.process_id, b"".join(held), True))
