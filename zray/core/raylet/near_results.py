"""Results of near tasks that their submitter and its node alone know of, and what near tasks need.

A small result without references stays here until a reference to it leaves its submitter, or its
submitter drops it. What near tasks refer to that the cluster knows, the node itself holds for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zray import limits
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.worker_requests import WorkerRequests
from zray.ids import split_objects
from zray.protocol import messages as m


class NearResult:
    """``outcome`` is None until its task has ended. ``uses``: near tasks that refer to it."""

    __slots__ = ("outcome", "owner", "uses", "wanted")

    def __init__(self, owner: bytes) -> None:
        self.owner = owner
        self.outcome: m.Outcome | None = None
        self.uses = 0
        self.wanted = True  # its owner refers to it


class NearResults:
    """Of one incarnation of the raylet.

    Args:
        tell_head: as ``HeadSession.tell``.

    Attributes:
        pins: what the node holds for near tasks, and for how many.
        ever_pinned: the head may take it for a holder of others as well.
    """

    def __init__(
        self,
        node_id: bytes,
        objects: LocalObjects,
        worker_requests: WorkerRequests,
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._node_id = node_id
        self._objects = objects
        self._requests = worker_requests
        self._tell_head = tell_head
        self._results: dict[bytes, NearResult] = {}
        self.pins: dict[bytes, int] = {}
        self.ever_pinned = False

    def __bool__(self) -> bool:
        return bool(self._results)

    def __contains__(self, oid: bytes) -> bool:
        """Whether the cluster has not heard of the object."""
        return oid in self._results

    def outcome(self, oid: bytes) -> m.Outcome | None:
        """Of such an object, if its task has ended."""
        result = self._results.get(oid)
        return result.outcome if result is not None else None

    # ---- what near tasks refer to ------------------------------------------------------------

    def use(self, spec: m.TaskSpec) -> list[bytes]:
        """A near task refers to these, until ``unuse``."""
        used = [*spec.dependencies, *spec.nested]
        for oid in used:
            result = self._results.get(oid)
            if result is not None:
                result.uses += 1
            else:
                self._pin(oid, 1)
        return used

    def unuse(self, used: list[bytes]) -> None:
        """A near task does not refer to these any more."""
        dropped = []
        for oid in used:
            result = self._results.get(oid)
            if result is not None:
                result.uses -= 1
                self._tidy(oid, result)
            elif oid in self.pins:  # else there will be no such result
                self.pins[oid] -= 1
                if not self.pins[oid]:
                    del self.pins[oid]
                    dropped.append(oid)
        if dropped:
            self._tell_head(m.Drop(0, self._node_id, b"".join(dropped)))

    def _pin(self, oid: bytes, uses: int) -> None:
        before = self.pins.get(oid, 0)
        self.pins[oid] = before + uses
        if not before:
            self.ever_pinned = True
            self._tell_head(m.Hold(0, self._node_id, oid))

    # ---- results -----------------------------------------------------------------------------

    def expect(self, owner: bytes, returns: Iterable[bytes]) -> None:
        """A worker has submitted a near task with these results."""
        held = self._requests.principals[owner].near_results
        for oid in returns:
            self._results[oid] = NearResult(owner)
            held[oid] = None

    def is_wanted(self, oid: bytes) -> bool:
        """Whether anybody refers to the object."""
        result = self._results.get(oid)
        return result is not None and bool(result.wanted or result.uses)

    def came(self, outcome: m.Outcome, maker: bytes) -> m.Outcome:
        """A task has ended with it; as its owner is to see it.

        ``maker``: the worker that ran the task. A large one is kept by its node, and what refers
        to others holds them: of both the cluster hears at once.
        """
        oid = outcome.object_id
        result = self._results.get(oid)
        if result is not None:
            result.outcome = outcome
            self._tidy(oid, result)
        if result is None or oid not in self._results:
            self._objects.discard([outcome], maker)
            return outcome
        bulky = outcome.kind & m.LOCATED or len(outcome.value) > limits.INLINE_BYTES_MAX
        return self._told(oid, result, maker) if bulky or outcome.contained else outcome

    def reveal(self, oid: bytes) -> None:
        """A reference to a result that is there leaves its owner: the cluster hears of it."""
        result = self._results.get(oid)
        if result is not None and result.outcome is not None:
            self._told(oid, result, result.owner)

    def _told(self, oid: bytes, result: NearResult, maker: bytes) -> m.Outcome:
        assert result.outcome is not None
        self._forget(oid, result)
        told = self._requests.put_for(result.owner, result.outcome, maker)
        self._settle_holders(oid, result)
        return told

    def _settle_holders(self, oid: bytes, result: NearResult) -> None:
        """The cluster takes its owner for a holder: who else is, and whether that is so."""
        if result.uses:
            self._pin(oid, result.uses)
        if not result.wanted:
            self._requests.drop_for(result.owner, [oid])

    def entrusted(self, returns: Iterable[bytes]) -> None:
        """The head has heard of the task whose results these are, and who has submitted it."""
        for oid in returns:
            result = self._results[oid]
            self._forget(oid, result)
            self._settle_holders(oid, result)

    def withdrawn(self, returns: Iterable[bytes]) -> None:
        """There will be no such results, and nobody asks for them."""
        for oid in returns:
            self._forget(oid, self._results[oid])

    def drop(self, owner: bytes, object_ids: bytes) -> list[bytes]:
        """A worker does not hold these any more; returns those that the cluster knows."""
        rest = []
        for oid in split_objects(object_ids):
            result = self._results.get(oid)
            if result is None:
                rest.append(oid)
            else:
                result.wanted = False
                self._requests.principals[owner].near_results.pop(oid, None)
                self._tidy(oid, result)
        return rest

    def dismissed(self, near_results: Iterable[bytes]) -> None:
        """Their owner has ended."""
        for oid in near_results:
            result = self._results.get(oid)
            if result is not None:
                result.wanted = False
                self._tidy(oid, result)

    def _tidy(self, oid: bytes, result: NearResult) -> None:
        if result.outcome is not None and not (result.wanted or result.uses):
            self._forget(oid, result)

    def _forget(self, oid: bytes, result: NearResult) -> None:
        del self._results[oid]
        owner = self._requests.principals.get(result.owner)
        if owner is not None:
            owner.near_results.pop(oid, None)
