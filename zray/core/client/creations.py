"""The part of the Client that has actors made.

A request for an actor leaves once the cluster has been told of what its constructor needs; until
then it waits here. The answers make this process a holder of handles; of one that was there already
it does not stay one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from zray.core.client.actor_caller import HANDLE_INDEX, ActorCaller, ActorCallers
from zray.core.client.definitions import ClientDefinitions
from zray.core.client.references import ClientReferences
from zray.core.client.requests import Requests
from zray.core.client.waiters import Waiter
from zray.core.identity import Identity
from zray.ids import object_id
from zray.protocol import messages as m


class Creation(NamedTuple):
    """A request for an actor that may not leave yet."""

    needed: list[bytes]
    ask: Callable[[], None]


class ClientCreations:
    """Args:
    actors: that are called from here, or of which there is a handle.
    unsubmitted: whether a task has not been submitted yet.
    submit: does so now, if it has not.
    refuse: an actor will not be, and why.
    asked: a request that had to wait has left.
    """

    def __init__(
        self,
        *,
        me: Identity,
        actors: ActorCallers,
        references: ClientReferences,
        definitions: ClientDefinitions,
        requests: Requests,
        unsubmitted: Callable[[bytes], bool],
        submit: Callable[[bytes], None],
        refuse: Callable[[ActorCaller, str], None],
        asked: Callable[[bytes], None],
    ) -> None:
        self._me = me
        self._actors = actors
        self._references = references
        self._definitions = definitions
        self._requests = requests
        self._unsubmitted = unsubmitted
        self._submit = submit
        self._refuse = refuse
        self._asked = asked
        self.waiting: dict[bytes, Creation] = {}  # actors whose arguments were not submitted

    def create(
        self, task: m.TaskSpec, info: m.ActorInfo, get_if_exists: bool, waiter: Waiter
    ) -> list[m.Message]:
        """Ask for a new actor, whose handle is counted here. The answer is in the list when
        ``waiter`` has arrived; the handle of another actor that it names is not counted."""
        self._definitions.use(task.template_id)
        needed = [*task.dependencies, *task.nested]
        self._references.passed_on(needed)
        self._references.publish(needed)
        for oid in needed:
            self._references.add(oid)  # until the head holds them for the actor
        self._references.adopt(object_id(task.task_id, HANDLE_INDEX))
        actor = self._actors.of(task.task_id)
        actor.info = info
        refusal = self._definitions.refusal(task.template_id)
        if refusal is not None:
            self._refuse(actor, f"the head refused its class: {refusal[1]}")

        def done() -> None:
            for oid in needed:
                self._references.remove(oid)
            self._definitions.unuse(task.template_id)
            created = answer[0] if answer else None
            if isinstance(created, m.ActorCreated | m.Rejected) and created.code:
                self._refuse(actor, created.text)
            waiter.arrived()

        waiter.remaining += 1
        answer: list[m.Message] = []

        def ask() -> None:
            self._requests.ask(
                lambda seq: m.CreateActor(
                    *(seq, self._me.job_id, self._me.process_id, task, info, get_if_exists)
                ),
                Waiter(done),
                answer,
            )

        if self.may_leave(needed):
            ask()
        else:
            self.waiting[task.task_id] = Creation(needed, ask)
        return answer

    def ask_some(self) -> None:
        """Ask for the actors whose arguments have been submitted meanwhile."""
        for actor_id, creation in [*self.waiting.items()]:
            del self.waiting[actor_id]
            if not self.may_leave(creation.needed):
                self.waiting[actor_id] = creation
                self.hurry(creation.needed)
                continue
            creation.ask()
            self._asked(actor_id)

    def may_leave(self, object_ids: Iterable[bytes]) -> bool:
        """Whether the cluster is told of these before it is told who needs them."""
        creations = self.waiting
        return not any(oid[:16] in creations or self._unsubmitted(oid[:16]) for oid in object_ids)

    def hurry(self, object_ids: Iterable[bytes]) -> None:
        """These hold up others, on which the tasks may wait that were submitted before them."""
        for oid in object_ids:
            self._submit(oid[:16])

    # ---- answers ---------------------------------------------------------------------------

    def on_answer(self, request: m.Message, answer: m.Message) -> None:
        """The head makes this process a holder of handles that it names in answers."""
        if isinstance(answer, m.ActorFound) and answer.actor_id:
            # A handle that was found keeps nothing alive.
            self._references.drop_again(object_id(answer.actor_id, HANDLE_INDEX))
        elif isinstance(answer, m.ActorCreated) and isinstance(request, m.CreateActor):
            asked = request.task.task_id
            self._references.drop_again(object_id(asked, HANDLE_INDEX))
            if not answer.code and answer.actor_id != asked:  # one that was there is only found
                self._references.drop_again(object_id(answer.actor_id, HANDLE_INDEX))

    def on_refusal(self, request: m.Message) -> None:
        """The head does not take a request as it is."""
        if isinstance(request, m.CreateActor):
            self._references.drop_again(object_id(request.task.task_id, HANDLE_INDEX))

    def class_refused(self, function_id: bytes, text: str) -> None:
        """The head does not take a class of this process's: what was made of it will not be."""
        for actor in [*self._actors.values()]:
            if actor.info is not None and actor.info.function_id == function_id:
                self._refuse(actor, text)
                self._requests.ask(partial(_kill, actor.actor_id), Waiter(lambda: None))


def _kill(actor_id: bytes, seq: int) -> m.KillActor:
    return m.KillActor(seq, actor_id, True)
