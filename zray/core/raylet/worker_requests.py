"""The raylet as agent of its workers: what they submit and hold, kept for them towards the head.

A worker is a client like a driver, but its raylet keeps its redo log: the specs of the tasks it
submitted until each has its outcome, and the full set of what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from zray.core import failures
from zray.core.machine import Outbox
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.worker_definitions import WorkerDefinitions
from zray.errors import MessageTooLargeError, ObjectLostError
from zray.ids import object_id, split_objects, task_of
from zray.protocol.messages import (
    ACTOR_DEAD,
    ActorCreated,
    ActorFound,
    ActorNames,
    ActorState,
    ActorWatch,
    AskGone,
    AskGroups,
    Begun,
    BegunTask,
    Cancel,
    CreateActor,
    CreateGroup,
    Drop,
    Explained,
    FindActor,
    Gone,
    Groups,
    Hold,
    Holds,
    JobExited,
    KillActor,
    Kv,
    KvReply,
    List,
    ListActors,
    Listed,
    Message,
    Outcome,
    Promise,
    Pull,
    PullFailed,
    Put,
    Query,
    Reasons,
    Rejected,
    RemoveGroup,
    Result,
    ResultAck,
    Status,
    Submit,
    Summarize,
    Summary,
    Sync,
    Synced,
    TaskDone,
    TaskSpec,
    Trace,
    Traced,
    Watch,
    Why,
)

REQUESTS = (
    *(Query, Kv, KillActor, FindActor, ListActors, Sync, AskGone, Trace),
    *(List, Summarize, Why, CreateGroup, RemoveGroup, AskGroups, JobExited),
)
Request = (
    Query
    | Kv
    | KillActor
    | FindActor
    | ListActors
    | Sync
    | AskGone
    | CreateActor
    | Trace
    | List
    | Summarize
    | Why
    | CreateGroup
    | RemoveGroup
    | AskGroups
    | JobExited
)
Answer = (
    Status
    | Reasons
    | KvReply
    | Synced
    | ActorCreated
    | ActorFound
    | ActorNames
    | Gone
    | Traced
    | Listed
    | Summary
    | Explained
    | Groups
)


class Principal:
    """One worker as a client."""

    def __init__(self, worker_id: bytes, job_id: bytes) -> None:
        self.worker_id = worker_id
        self.job_id = job_id
        self.holds: dict[bytes, None] = {}
        self.unresolved: dict[bytes, TaskSpec] = {}
        self.early: list[bytes] = []  # tasks of whose outcomes the last part is to come
        self.partly: dict[bytes, None] = {}  # those that the worker takes for ended, of any session
        self.watched: dict[bytes, None] = {}
        self.cancels: dict[bytes, Cancel] = {}  # of tasks that may not have ended
        self.promised: dict[bytes, None] = {}
        self.actors: dict[bytes, None] = {}  # whose state it is told
        self.owned: dict[bytes, None] = {}  # actors that end with it
        self.asked: dict[int, None] = {}  # our numbers of its requests
        self.begun: dict[bytes, None] = {}  # those that ran when the head was told of them
        self.near_tasks: dict[bytes, None] = {}  # of which the head has not heard
        self.near_results: dict[bytes, None] = {}  # of those, what it holds


class WorkerRequests:
    """What workers have asked of the head, kept until it is answered."""

    def __init__(
        self,
        outbox: Outbox[bytes],
        objects: LocalObjects,
        tell_head: Callable[[Message], None],
        numbers: Iterator[int],
    ) -> None:
        """``tell_head``: as ``HeadSession.tell``. ``numbers``: of all that the head may refuse."""
        self._outbox = outbox
        self._objects = objects
        self._tell_head = tell_head
        self.principals: dict[bytes, Principal] = {}
        self.definitions = WorkerDefinitions(
            tell_head, self._number, self._unnumber, self._needed_templates
        )
        self._asked: dict[int, tuple[bytes, Request]] = {}  # our seq -> worker's request
        self._numbers = numbers
        self._told: dict[int, tuple[bytes, int]] = {}  # our seq -> worker, and its seq

    def employ(self, worker_id: bytes, job_id: bytes) -> None:
        """There is such a worker, of that job."""
        self.principals[worker_id] = Principal(worker_id, job_id)
        self.definitions.employ(worker_id)

    def dismiss(self, worker_id: bytes) -> None:
        """The worker has ended: what it has asked for nobody wants."""
        principal = self.principals.pop(worker_id, None)
        if principal is not None:
            for number in principal.asked:
                self._asked.pop(number, None)
                self._told.pop(number, None)
            self.definitions.dismiss(worker_id)

    def idle(self, worker_id: bytes) -> bool:
        """Whether nothing in the cluster depends on this worker staying alive."""
        principal = self.principals.get(worker_id)
        return principal is None or not (
            *(principal.holds or principal.unresolved or principal.owned or principal.promised),
            *(principal.near_tasks or principal.near_results),
        )

    def borrowed(self, worker_id: bytes, object_ids: list[bytes]) -> None:
        """It keeps references of a task's arguments: it is a holder of these from now on."""
        principal = self.principals.get(worker_id)
        if principal is not None:
            principal.holds.update(dict.fromkeys(object_ids))

    def still_borrowed(self, done: TaskDone) -> TaskDone:
        """An end as it is to be told again: without what its worker has dropped since."""
        if not done.borrowed:
            return done
        principal = self.principals.get(done.worker_id)
        holds = principal.holds if principal is not None else {}
        borrowed = [oid for oid in done.borrowed if oid in holds]
        return msgspec.structs.replace(done, borrowed=borrowed)

    # ---- session ---------------------------------------------------------------------------

    def holds(self) -> list[Holds]:
        """Every living worker with all that it holds."""
        return [Holds(p.worker_id, b"".join(p.holds)) for p in self.principals.values()]

    def resume(self, attempts: dict[bytes, int]) -> None:
        """Tell a new session everything that is unresolved.

        ``attempts``: that this node has of tasks, running or ended.
        """
        self.definitions.resume()
        for principal in self.principals.values():
            principal.early.clear()
            for template in self.definitions.of_worker(principal.worker_id):
                self._tell_head(template)
            if principal.unresolved:
                specs = list(principal.unresolved.values())
                self._resubmit(principal, specs, attempts)
                dropped = [oid for oid in self._returns(specs) if oid not in principal.holds]
                if dropped:
                    self._tell_head(Drop(0, principal.worker_id, b"".join(dropped)))
            if principal.watched:
                watched = b"".join(principal.watched)
                self._tell_head(Watch(0, principal.worker_id, watched))
            for cancel in principal.cancels.values():
                self._tell_head(cancel)

    def _resubmit(
        self, principal: Principal, specs: list[TaskSpec], attempts: dict[bytes, int]
    ) -> None:
        """That a task has begun here the head may not have heard: then it must not start twice."""
        who = (0, principal.job_id, principal.worker_id)
        begun = [spec.task_id for spec in specs if spec.task_id in principal.begun]
        here = {task_id: attempts[task_id] for task_id in begun if task_id in attempts}
        if here:
            tasks = [BegunTask(spec, here[spec.task_id]) for spec in specs if spec.task_id in here]
            specs = [spec for spec in specs if spec.task_id not in here]
            self._tell_head(Begun(*who, tasks))
        if specs:
            self._tell_head(Submit(*who, specs))

    def resume_requests(self) -> None:
        """What a new session is asked once it knows what everybody here holds."""
        for number, (_, request) in self._asked.items():
            self._tell_head(msgspec.structs.replace(request, seq=number))
        for principal in self.principals.values():
            if principal.promised:
                self._tell_head(Promise(0, principal.worker_id, b"".join(principal.promised)))
            if principal.actors:
                self._tell_head(ActorWatch(0, principal.worker_id, list(principal.actors)))

    def _returns(self, specs: list[TaskSpec]) -> Iterator[bytes]:
        for spec in specs:
            for index in range(self.definitions.returns(spec.template_id)):
                yield object_id(spec.task_id, index)

    # ---- from workers ----------------------------------------------------------------------

    def _number(self, worker_id: bytes, seq: int) -> int:
        """A number for what the worker says under one of its own."""
        number = next(self._numbers)
        self._told[number] = (worker_id, seq)
        self.principals[worker_id].asked[number] = None
        return number

    def _unnumber(self, worker_id: bytes, number: int) -> None:
        self._told.pop(number, None)
        principal = self.principals.get(worker_id)
        if principal is not None:
            principal.asked.pop(number, None)

    def _needed_templates(self, worker_id: bytes) -> set[bytes]:
        principal = self.principals[worker_id]
        return {principal.unresolved[task_id].template_id for task_id in principal.partly}

    def on_submit(self, worker_id: bytes, message: Submit) -> None:
        """Pass tasks on, and keep them until their outcomes are known."""
        self.submit(worker_id, message.tasks)

    def submit(self, worker_id: bytes, tasks: list[TaskSpec]) -> None:
        """The same."""
        principal = self.principals[worker_id]
        for spec in tasks:
            principal.unresolved[spec.task_id] = spec
        principal.holds.update(dict.fromkeys(self._returns(tasks)))
        self._tell_head(Submit(0, principal.job_id, worker_id, tasks))

    def begun(self, worker_id: bytes, task: BegunTask) -> None:
        """The same for a task that this node has already."""
        principal = self.principals[worker_id]
        principal.unresolved[task.spec.task_id] = task.spec
        principal.begun[task.spec.task_id] = None
        principal.holds.update(dict.fromkeys(self._returns([task.spec])))
        self._tell_head(Begun(0, principal.job_id, worker_id, [task]))

    def put_for(self, worker_id: bytes, outcome: Outcome, maker: bytes) -> Outcome:
        """A result of a task of its own is the cluster's from now on; it as others see it."""
        self.principals[worker_id].holds[outcome.object_id] = None
        told = self._objects.put(outcome, maker)
        self._tell_head(Put(0, worker_id, told))
        return told

    def drop_for(self, worker_id: bytes, object_ids: list[bytes]) -> None:
        """It has dropped these before the cluster has heard of them."""
        if object_ids:
            self.on_drop(worker_id, Drop(0, worker_id, b"".join(object_ids)))

    def too_large(self, worker_id: bytes, spec: TaskSpec, text: str) -> None:
        """A worker's task is too large for the head: it has this error."""
        principal = self.principals.get(worker_id)
        if principal is None or not self._resolved(principal, spec.task_id):
            return
        template = self.definitions.templates.get(spec.template_id)
        name = template.name if template is not None else ""
        value = failures.encode(MessageTooLargeError, text, name)
        returns = self.definitions.returns(spec.template_id)
        outcomes = failures.outcomes(spec.task_id, returns, value)
        self._outbox.send(worker_id, Result(0, worker_id, outcomes))
        for outcome in outcomes:  # others may have heard of it
            self._tell_head(Put(0, worker_id, self._objects.put(outcome, worker_id)))

    def on_hold(self, worker_id: bytes, message: Hold) -> None:
        """Pass on what it holds."""
        principal = self.principals[worker_id]
        for oid in split_objects(message.object_ids):
            principal.holds[oid] = None
            principal.promised.pop(oid, None)  # its value is where it was made
        self._tell_head(Hold(0, worker_id, message.object_ids))

    def on_drop(self, worker_id: bytes, message: Drop) -> None:
        """Pass on what it does not hold any more."""
        holds = self.principals[worker_id].holds
        for oid in split_objects(message.object_ids):
            holds.pop(oid, None)
        self._tell_head(Drop(0, worker_id, message.object_ids))

    def on_watch(self, worker_id: bytes, message: Watch) -> None:
        """Outcomes that are here are answered here."""
        elsewhere = []
        for oid in split_objects(message.object_ids):
            outcome = self._objects.stored.get(oid)
            if outcome is not None:
                self._outbox.send(worker_id, Result(0, worker_id, [outcome]))
            else:
                self.principals[worker_id].watched[oid] = None
                elsewhere.append(oid)
        if elsewhere:
            self._tell_head(Watch(0, worker_id, b"".join(elsewhere)))

    def on_put(self, worker_id: bytes, message: Put) -> None:
        """Keep a value of the worker's here, and tell the head that it is."""
        outcome = message.outcome
        principal = self.principals[worker_id]
        principal.holds[outcome.object_id] = None
        principal.promised.pop(outcome.object_id, None)
        self._tell_head(Put(0, worker_id, self._objects.put(outcome, worker_id)))

    def on_pull(self, worker_id: bytes, message: Pull) -> None:
        """Send it a value, fetched from elsewhere if need be."""

        def arrived(outcome: Outcome | None, text: str) -> None:
            answer: Message
            if outcome is None:
                answer = PullFailed(0, message.transfer, ObjectLostError.code, text)
            else:
                answer = self._objects.in_one_chunk(outcome, message.transfer)
            self._outbox.send(worker_id, answer)

        stored = self._objects.stored.get(message.object_id)
        if stored is not None:
            arrived(stored, "")
        else:
            self._objects.fetch(message.object_id, arrived)

    def on_cancel(self, worker_id: bytes, message: Cancel) -> None:
        """Pass it on, and keep it until the task's outcome is known."""
        self.principals[worker_id].cancels[message.task_id] = message
        self._tell_head(message)

    def on_request(self, worker_id: bytes, message: Request) -> None:
        """Passed on; the answer comes back to the worker under the worker's own number."""
        number = next(self._numbers)
        self._asked[number] = (worker_id, message)
        self.principals[worker_id].asked[number] = None
        self._tell_head(msgspec.structs.replace(message, seq=number))

    def on_promise(self, worker_id: bytes, message: Promise) -> None:
        """Pass it on, and keep it until the object is put."""
        principal = self.principals[worker_id]
        ids = dict.fromkeys(split_objects(message.object_ids))
        principal.promised.update(ids)
        principal.holds.update(ids)
        self._tell_head(message)

    def on_create_actor(self, worker_id: bytes, message: CreateActor) -> None:
        """Pass it on as a request; the worker watches what it has asked for."""
        principal = self.principals[worker_id]
        actor_id = message.task.task_id
        principal.holds[object_id(actor_id)] = None
        if not message.info.detached:
            principal.owned[actor_id] = None
            principal.actors[actor_id] = None
        self.on_request(worker_id, message)

    def on_actor_watch(self, worker_id: bytes, message: ActorWatch) -> None:
        """Pass it on, and remember who watches what."""
        self.principals[worker_id].actors.update(dict.fromkeys(message.actor_ids))
        self._tell_head(message)

    # ---- from the head ---------------------------------------------------------------------

    def refused(self, message: Rejected) -> bool:
        """The head refuses what a worker has said or asked; whether it is known who that was."""
        asked = self._asked.pop(message.about, None)
        if asked is not None:
            worker_id, request = asked
            self.principals[worker_id].asked.pop(message.about, None)
            about = request.seq
        elif message.about in self._told:
            worker_id, about = self._told[message.about]
        else:
            return False
        self._outbox.send(worker_id, msgspec.structs.replace(message, about=about))
        return True

    def on_result(self, message: Result) -> None:
        """Outcomes for a worker: it hears of them, and their tasks are let go of."""
        principal = self.principals.get(message.target)
        if principal is not None:
            for outcome in message.outcomes:
                task_id = task_of(outcome.object_id)
                principal.watched.pop(outcome.object_id, None)
                if message.seq:
                    self._resolved(principal, task_id)
                else:  # the other part of a task's returns may get lost
                    principal.early.append(task_id)
                    if task_id in principal.unresolved:
                        principal.partly[task_id] = None
            if message.seq and principal.early:
                for task_id in principal.early:
                    self._resolved(principal, task_id)
                principal.early.clear()
            if message.target in self.definitions.leaving:
                self.definitions.let_go(message.target)
            self._outbox.send(message.target, message)
        if message.seq:
            self._tell_head(ResultAck(0, message.target, message.seq))

    @staticmethod
    def _resolved(principal: Principal, task_id: bytes) -> bool:
        """The task need not be submitted again; whether that is news."""
        principal.cancels.pop(task_id, None)
        principal.begun.pop(task_id, None)
        principal.partly.pop(task_id, None)
        return principal.unresolved.pop(task_id, None) is not None

    def on_actor_state(self, message: ActorState) -> None:
        """Pass it on to the worker that watches the actor."""
        principal = self.principals.get(message.target)
        if principal is None:
            return
        if message.state == ACTOR_DEAD:
            principal.actors.pop(message.actor_id, None)
            principal.owned.pop(message.actor_id, None)
        self._outbox.send(message.target, message)

    def on_answer(self, message: Answer) -> None:
        """Give an answer to the worker that has asked, under the number that it chose."""
        asked = self._asked.pop(message.about, None)
        if asked is None:
            return
        worker_id, request = asked
        principal = self.principals[worker_id]
        del principal.asked[message.about]
        if isinstance(message, ActorFound) and message.actor_id:
            principal.holds[object_id(message.actor_id)] = None
        elif isinstance(message, ActorCreated) and isinstance(request, CreateActor):
            self._actor_created(principal, request, message)
        self._outbox.send(worker_id, msgspec.structs.replace(message, about=request.seq))

    @staticmethod
    def _actor_created(principal: Principal, request: CreateActor, message: ActorCreated) -> None:
        wanted = request.task.task_id
        if message.code or message.actor_id != wanted:
            principal.owned.pop(wanted, None)
            principal.holds.pop(object_id(wanted), None)
        if not message.code:
            principal.holds[object_id(message.actor_id)] = None
