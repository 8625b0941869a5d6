"""What this process knows of why its tasks, calls and objects are not done, or how they ended."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from zray import limits
from zray.core import causes, resources
from zray.core.causes import READY, cause
from zray.core.client.actor_caller import PendingCall
from zray.core.client.call_errors import named
from zray.core.client.call_results import CallResults
from zray.core.client.calls import ClientCalls
from zray.core.client.definitions import ClientDefinitions
from zray.core.client.lease import Lease, PendingTask
from zray.core.client.lease_class import LeaseClasses
from zray.core.client.leased_tasks import LeasedTasks
from zray.core.client.tasks import ClientTasks
from zray.core.client.waiters import Waiters
from zray.core.identity import Identity
from zray.ids import OBJECT_BYTES, object_id, origin_of
from zray.protocol import messages as m


class Known(NamedTuple):
    """As TOLD_WHY has it."""

    causes: list[m.Cause]
    next: bytes = b""
    needs: tuple[tuple[str, int], ...] = ()
    lease_id: bytes = b""


class ClientCauses:
    """``outcomes``: those known here; ``results``: of what this process waits for by itself."""

    def __init__(
        self,
        me: Identity,
        outbox: list[m.Message],
        outcomes: Mapping[bytes, m.Outcome],
        results: CallResults,
        definitions: ClientDefinitions,
        tasks: ClientTasks,
        leased_tasks: LeasedTasks,
        classes: LeaseClasses,
        calls: ClientCalls,
        waiters: Waiters,
    ) -> None:
        self._me = me
        self._outbox = outbox
        self._outcomes = outcomes
        self._results = results
        self._definitions = definitions
        self._tasks = tasks
        self._leased_tasks = leased_tasks
        self._classes = classes
        self._calls = calls
        self._waiters = waiters

    def on_ask(self, message: m.AskWhy) -> None:
        """The head asks on behalf of somebody."""
        found = self.of(message.id, all_known=True)
        told = m.ToldWhy(
            0, message.seq, found.causes, found.next, list(found.needs), found.lease_id
        )
        self._outbox.append(told)

    def of(self, thing_id: bytes, *, all_known: bool = False) -> Known:
        """The chain as far as it is known here, and the id at which the head can go on.

        ``all_known``: also what is only known to be with the head. No causes: nothing is known.
        """
        if thing_id == self._me.process_id:
            if not all_known:
                return Known([], thing_id)
            awaited = self._waiters.awaited()
            return Known([self._own_tasks(awaited)], awaited)
        found: list[m.Cause] = []
        seen: dict[bytes, None] = {}
        known = Known([], thing_id)
        while known.next and known.next not in seen and len(found) < limits.WHY_CHAIN_MAX:
            seen[known.next] = None
            oid = known.next if len(known.next) == OBJECT_BYTES else object_id(known.next)
            step = self._step(oid, all_known=all_known)
            if not step.causes:
                return Known(found, step.next or known.next)
            found += step.causes
            then, _ = causes.pass_over(found, step.next, self._further, limits.WHY_HOPS_MAX)
            known = step._replace(next=then)
        return Known(found, known.next, known.needs, known.lease_id)

    def _step(self, oid: bytes, *, all_known: bool) -> Known:
        outcome = self._outcomes.get(oid)
        if outcome is not None:
            return Known([self._ended(oid, outcome)])
        pending = self._results.awaited.get(oid)
        if isinstance(pending, PendingTask):
            return self._leased(pending)
        if isinstance(pending, PendingCall):
            return self._call(pending)
        origin = origin_of(oid)
        if origin != oid[:16]:  # an item that is yet to be yielded, say
            return Known([], object_id(origin))
        spec = self._tasks.unresolved.get(origin)
        if spec is None:
            return Known([])
        template = self._definitions.templates.get(spec.template_id)
        name = template.name if template is not None else "a task"
        if origin in self._tasks.unsubmitted:
            text = (
                f"{name} waits in its program: {self._tasks.in_flight:,} of its tasks are with the "
                "head, and have to end first"
            )
            return Known([cause("task", origin, name, "WAIT_SUBMIT", text)])
        if all_known:
            text = f"{name} was submitted to the head"
            return Known([cause("task", origin, name, "SUBMITTED", text)])
        return Known([])

    def _further(self, oid: bytes) -> bytes:
        """What a task waits for that waits for arguments, if that waits for arguments, too."""
        missing = self._missing(oid)
        return missing if missing and self._missing(missing) else b""

    def _missing(self, oid: bytes) -> bytes:
        task = self._results.awaited.get(oid)
        if not isinstance(task, PendingTask) or task.lease is not None or not task.waiting:
            return b""
        return next((one for one in task.spec.dependencies if one not in self._outcomes), b"")

    @staticmethod
    def _ended(oid: bytes, outcome: m.Outcome) -> m.Cause:
        if outcome.kind & m.ERROR and outcome.value:
            return causes.failed("object", oid, "", bytes(outcome.value))
        text = f"its value ({outcome.size:,} bytes) is there, and waits for nothing"
        return cause("object", oid, "", READY, text)

    # ---- what does not go by way of the head ---------------------------------------------------

    def _leased(self, task: PendingTask) -> Known:
        task_id, name = task.spec.task_id, task.template.message.name
        group, lease = self._classes[task.template.key], task.lease
        code, _, text = self._leased_tasks.reason(object_id(task_id)).partition(": ")
        if lease is not None:
            first = next(iter(lease.inflight))
            found = cause("task", task_id, name, code, text)
            if first == task_id:
                return Known([found], lease_id=lease.lease_id)
            return Known([found], first)
        if task.waiting:
            found = cause("task", task_id, name, code, text)
            return Known([found], self._missing(object_id(task_id)))
        details = [self._of_lease(one) for one in islice(group.leases.values(), 4)]
        like = self._leased_tasks.like(object_id(task_id))
        found = cause(
            *("task", task_id, name, code, text),
            details=details,
            more=len(group.leases) - len(details),
            advice="it starts as soon as one of them, or another CPU, is free",
        )
        return Known([found], like, () if like else resources.needs(task.template.key))

    @staticmethod
    def _of_lease(lease: Lease) -> tuple[str, str]:
        first = next(iter(lease.inflight.values()), None)
        name = first.template.message.name if first is not None else "nothing yet"
        behind = max(0, len(lease.inflight) - 1)
        more = f", and has {behind} others" if behind else ""
        return lease.node, f"a worker that is leased to this process runs {name}{more}"

    def _call(self, call: PendingCall) -> Known:
        code, _, text = self._calls.reason(object_id(call.task_id))[0].partition(": ")
        found = cause("call", call.task_id, named(call), code, text)
        return Known([found], call.actor.actor_id)

    def _own_tasks(self, awaited: bytes) -> m.Cause:
        """What its unfinished tasks wait for that the head does not see."""
        details = []
        for group in islice(self._classes.values(), limits.WHY_NODES_MAX):
            wanted = resources.in_words(group.key)
            given = sum(len(lease.inflight) for lease in group.leases.values())
            if given:
                what = f"LEASED: with {len(group.leases):,} workers leased to it (needs {wanted})"
                details.append((given, what))
            if group.waiting:
                what = f"WAIT_RESOURCES: for such a worker (needs {wanted})"
                details.append((len(group.waiting), what))
        if self._tasks.backlog:
            what = "WAIT_SUBMIT: in the program, until others at the head have ended"
            details.append((len(self._tasks.unsubmitted), what))
        details.sort(key=lambda one: -one[0])
        text = f"{len(self._leased_tasks):,} of its tasks go straight to workers, not by the head"
        text += "; the program waits for a value now" if awaited else ""
        return cause(
            *("driver", self._me.process_id, "", "DRIVER", text),
            details=[(f"{count:,}", what) for count, what in details],
        )
