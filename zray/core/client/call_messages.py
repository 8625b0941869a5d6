"""How calls of actors travel: with which values, and what the cluster has to know before."""

from __future__ import annotations

from zray import limits
from zray.core.client.actor_caller import DIRECT, PendingCall
from zray.core.client.references import ClientReferences
from zray.protocol import messages as m


class CallMessages:
    """``outcomes``: the values of objects that this process has."""

    def __init__(self, references: ClientReferences, outcomes: dict[bytes, m.Outcome]) -> None:
        self._references = references
        self._outcomes = outcomes

    def made(self, call: PendingCall) -> m.Call:
        """The call as it travels; whatever it refers to is known to the cluster, or goes along."""
        if call.given_up:
            return m.Call(call.seq, call.task_id, call.method, 0, b"", given_up=True)
        arguments, dependencies = call.arguments, call.dependencies
        fits = len(arguments) <= limits.INLINE_BYTES_MAX or call.actor.path == DIRECT
        if fits and not (dependencies or call.nested or call.box):
            return m.Call(
                call.seq,
                call.task_id,
                call.method,
                call.num_returns,
                arguments,
                parent=call.parent,
                yields=call.yields,
                unread_max=call.unread_max,
                group=call.group,
                retry=call.retry if call.retries else b"",
                quiet=call.quiet,
            )
        nested = list(call.nested)
        if not fits:
            if not call.box:
                call.box = self._references.put(arguments, nested)
            arguments = b""
        boxed = bool(call.box) and not arguments
        dependencies = [call.box, *dependencies] if boxed else dependencies
        values, room = [], limits.INLINE_TOTAL_BYTES_MAX
        for oid in dependencies:
            outcome = self._outcomes.get(oid)
            here = outcome is not None and not outcome.kind & m.LOCATED
            if (
                outcome is not None
                and here
                and len(outcome.value) <= min(limits.INLINE_BYTES_MAX, room)
            ):
                room -= len(outcome.value)
                values.append(outcome)
                nested += outcome.contained
            else:
                self._references.publish([oid])
        self._references.publish(nested)
        return m.Call(
            *(call.seq, call.task_id, call.method, call.num_returns, arguments, dependencies),
            *(nested, values, call.parent, boxed, call.yields, call.unread_max),
            group=call.group,
            retry=call.retry if call.retries else b"",
            quiet=call.quiet,
        )
