"""``why``: what something waits for, why it failed or how it is, for programs and for people."""

from __future__ import annotations

from typing import Any, NamedTuple

from zray.api.actor_handles import ActorHandle
from zray.api.session import participant
from zray.core import causes
from zray.ids import OBJECT_BYTES, TASK_BYTES
from zray.protocol import messages as m
from zray.runtime.generators import ObjectRefGenerator
from zray.runtime.references import ObjectRef


class Cause(NamedTuple):
    """What is true of one thing, and why.

    Attributes:
        kind: task, call, attempt (what its node says of a task), object, actor, node, job, worker,
            driver, class (of tasks that need the same), head.
        id: in hex; may be empty.
        name: of its function, class or node, or what else people know it by.
        code: stable, such as ``WAIT_RESOURCES``; docs/why.md lists them.
        text: the same in words.
        since_s: for so many seconds it has been so; None: nobody knows.
        details: pairs of what and how, such as a node and what is missing there.
        more: so many details are left out.
        advice: what would help; empty: nothing has to.
    """

    kind: str
    id: str
    name: str
    code: str
    text: str
    since_s: float | None = None
    details: tuple[tuple[str, str], ...] = ()
    more: int = 0
    advice: str = ""


class Explanation:
    """``causes``: of ``subject`` first; each other is what the one before waits for."""

    def __init__(self, told: m.Explanation) -> None:
        self._told = told
        self.subject = told.subject
        self.causes = tuple(_cause(one) for one in told.causes)

    @property
    def code(self) -> str:
        """Of the first cause."""
        return self.causes[0].code

    @property
    def text(self) -> str:
        """Of the first cause."""
        return self.causes[0].text

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, as ``zray why --json`` prints it."""
        return causes.described(self._told)

    def __str__(self) -> str:
        return "\n".join(causes.lines(self._told.causes))

    def __repr__(self) -> str:
        return f"Explanation({self.subject!r}, {causes.chained(self._told.causes)!r})"


def why(thing: Any, *, timeout: float = 5.0) -> Explanation:
    """Why something waits, failed or is as it is: the stored reason, and the chain behind it.

    What this process knows comes first; the head completes it, and asks drivers and nodes for what
    they alone know. Where the head does not answer, the last cause says so (``NO_ANSWER``), with
    its last word and how old that is.

    Args:
        thing: a reference, a generator of references, or an actor's handle; or text: the id in hex
            of an object, task, actor, node, worker or job, or the name of a node or an actor.
        timeout: seconds to wait at most for answers.

    Raises:
        TypeError: ``thing`` is none of these.
        ValueError: ``timeout`` is not above 0.
    """
    if not timeout > 0:
        raise ValueError(f"timeout must be above 0 seconds, got {timeout!r}")
    if isinstance(thing, ObjectRef):
        subject: bytes | str = thing.id
    elif isinstance(thing, ObjectRefGenerator):
        subject = thing.completed().id
    elif isinstance(thing, ActorHandle):
        subject = thing._actor_id
    elif isinstance(thing, str):
        subject = _from_text(thing)
    else:
        raise TypeError(
            "why takes a reference, an actor's handle, or the id or name of something as text, not "
            f"{type(thing)}"
        )
    return Explanation(participant().why(subject, timeout))


def _cause(one: m.Cause) -> Cause:
    return Cause(
        *(one.kind, one.id.hex(), one.name, one.code, one.text),
        since_s=round(one.since_s, 3) if one.since_s >= 0 else None,
        details=tuple((detail.name, detail.text) for detail in one.details),
        more=one.more,
        advice=one.advice,
    )


def _from_text(text: str) -> bytes | str:
    """An id that is whole is looked up here first."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return text
    return found if len(found) in (TASK_BYTES, OBJECT_BYTES) else text
