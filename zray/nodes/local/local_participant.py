"""What the API works through in local mode: no cluster, but this program's own process.

A task runs where it is submitted, in the thread that does it, so that a debugger stops there. Its
function, arguments and result are copied by pickling as on the way to another process. No
process, socket or file is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from zray.core import bundles, failures
from zray.errors import (
    ActorAlreadyExistsError,
    ActorDiedError,
    PendingCallsLimitExceededError,
    ReentrantCallError,
    TaskPlacementGroupRemoved,
    ZrayError,
)
from zray.ids import is_item, object_id, origin_of, task_of
from zray.nodes.local.actors import LocalActor
from zray.nodes.local.answers import NOT_THERE, LocalAnswers
from zray.nodes.local.calls_at_once import AsyncActor, ThreadedActor
from zray.nodes.local.functions import LocalFunctions
from zray.nodes.local.groups import LocalGroups
from zray.nodes.local.objects import LocalObjects
from zray.nodes.local.running import Running, apart, context_of
from zray.nodes.local.streams import LocalStream
from zray.nodes.local.surroundings import LocalIdentity, Surroundings
from zray.nodes.local.waiting import LocalWaiting
from zray.nodes.local.work import NODE, Work, outcome_of, stops_the_program
from zray.nodes.options import NodeOptions
from zray.protocol import messages as m
from zray.runtime import identity, references, serialization
from zray.runtime.references import ObjectRef, WeakReference, counted
from zray.runtime.retries import covers
from zray.runtime.returns import collected


class LocalParticipant(LocalWaiting, Surroundings):
    """In the place of a Driver, and of the workers. ``node``: what ``init`` was told of one."""

    address = "local_mode"
    local = None

    def __init__(self, job: m.JobInfo, node: NodeOptions) -> None:
        self._ids = identity.id_source()
        process_id = self._ids.process_id()
        LocalWaiting.__init__(self, LocalObjects())
        self._functions = LocalFunctions(self.objects, self.get)
        node_id = self._ids.process_id()
        me = LocalIdentity(process_id, process_id, self.objects.unasked)
        Surroundings.__init__(self, me, self._functions, job, node_id)
        self._groups = LocalGroups(node_id, self._end_actors)
        self._answers = LocalAnswers(node, node_id, NODE, self._groups)
        self._actors: dict[bytes, LocalActor] = {}
        self._names: dict[tuple[str, str], LocalActor] = {}
        self._tasks: dict[bytes, Work] = {}  # that have not ended, or calls

    # ---- references ------------------------------------------------------------------------

    def borrow(self, oid: bytes) -> ObjectRef[Any]:
        """As ``Participant.borrow``."""
        self.objects.add([oid])
        return counted(oid)

    def count(self, oid: bytes) -> None:
        """As ``Participant.count``."""
        self.objects.add([oid])

    pin = count

    def handle_collected(self) -> None:
        """Its actor ends here, or with the next call of the API."""
        try:
            self._collect()
        except ReentrantCallError:  # what is collected was in the middle of one
            pass

    def _collect(self) -> None:
        """Let go of what the program has."""
        if not references.pending():
            return
        dropped = references.take_dropped()
        for function_id in references.take_unnamed():
            dropped += self._functions.unname(function_id)
        for task_id in references.take_unread():
            stream = self.streams.pop(task_id, None)
            if stream is not None:
                dropped += stream.close()
        self._release(dropped)

    def _release(self, oids: list[bytes]) -> None:
        for oid in self.objects.remove(oids):
            actor = self._actors.get(task_of(oid)) if not is_item(oid) else None
            if actor is not None and actor.dead:
                del self._actors[actor.actor_id]
            elif actor is not None and not actor.info.detached:
                actor.retire()

    # ---- values ----------------------------------------------------------------------------

    def put(self, value: Any, oid: bytes = b"") -> ObjectRef[Any]:
        """As ``SharedValues.put``."""
        self._collect()
        oid = oid or object_id(self._ids.task_id())
        return self._kept(outcome_of(oid, serialization.dumps_parts(value)))

    def put_error(self, data: bytes) -> ObjectRef[Any]:
        """As ``SharedValues.put_error``."""
        return self._kept(m.Outcome(object_id(self._ids.task_id()), m.ERROR, len(data), data))

    def _kept(self, outcome: m.Outcome) -> ObjectRef[Any]:
        self.objects.add([outcome.object_id])
        self.objects.settle([outcome])
        return counted(outcome.object_id)

    # ---- tasks -----------------------------------------------------------------------------

    def export(self, function: m.Export, template: m.Template) -> references.FunctionName:
        """As ``Participant.export``."""
        self._functions.export(function)
        self.name(template)
        return references.FunctionName(function.function_id)

    def name(self, template: m.Template) -> None:
        """As ``Participant.name``."""
        self._functions.templates[template.template_id] = template

    def submit(
        self, template: m.Template, arguments: serialization.Arguments
    ) -> list[ObjectRef[Any]]:
        """Run a task, here and now, unless it waits for arguments; references to its returns."""
        self._collect()
        work = Work(
            *(self.objects, self._ids.task_id(), template.name, arguments),
            parent=self.running_task(),
            num_returns=template.num_returns,
            yields=template.yields,
            unread_max=template.unread_max,
            retries=template.max_retries,
            template=template,
            portable=template.by_name,
        )
        refs = self._expect(work)
        self._functions.hold(template.function_id)
        self._when_ready(work, self._run)
        return refs

    def _expect(self, work: Work) -> list[ObjectRef[Any]]:
        self.objects.add(work.returns)
        self._tasks[work.task_id] = work
        if work.yields == m.ITEMS:
            self.streams[work.task_id] = LocalStream(self.objects, work)
        return [counted(oid) for oid in work.returns]

    def _when_ready(self, work: Work, run: Callable[[Work], None]) -> None:
        """Run it here, or later elsewhere if there is something that it waits for."""
        if work.is_ready():
            run(work)
            return
        begun = threading.Lock()

        def came() -> None:
            if work.is_ready() and begun.acquire(blocking=False):
                threading.Thread(target=run, args=(work,), name="zray-task", daemon=True).start()

        self.objects.watch(work.dependencies, came)
        came()

    def _run(self, work: Work) -> None:
        """All attempts of a task."""
        attempt, retry = 1, None
        assert work.template is not None
        lacks = self._groups.lacks(work.template)
        while True:
            try:
                if work.cancelled:
                    self._stop(work)
                elif lacks:
                    self._fail(work, failures.encode(TaskPlacementGroupRemoved, lacks, work.name))
                elif (record := work.failed_argument()) is not None:
                    self._fail(work, record)
                else:
                    function, retry = self._functions.load(work.template)
                    context = context_of(Running(work, attempt))
                    apart(context, work.environment, self._once, work, function, context, retry)
            except BaseException as error:
                if stops_the_program(error):
                    self._stop(work)
                    raise
                if (retry is True or covers(retry, error)) and work.takes_again():
                    attempt += 1
                    continue
                self._fail(work, work.record(error))
            return

    def _once(self, work: Work, function: Callable[..., Any], context: Any, retry: Any) -> None:
        value = work.bound(function)()
        if work.yields == m.ITEMS:
            stream = self.streams.get(work.task_id)
            if stream is not None:
                stream.begin(
                    value,
                    partial(apart, context, work.environment),
                    work.record,
                    partial(covers, retry),
                    lambda: work.bound(function)(),
                    partial(self._over, work),
                    lazy=True,
                )
                return
        if work.yields == m.REFERENCES:
            record = partial(_record, work, retry)
            value = collected(value, work.name, self, record)
        work.settle(value)
        self._over(work)

    def _fail(self, work: Work, record: bytes) -> None:
        stream = self.streams.get(work.task_id)
        if stream is not None:
            stream.fail(record)
        else:
            work.fail(record)
        self._over(work)

    def _stop(self, work: Work) -> None:
        work.cancelled = True
        stream = self.streams.get(work.task_id)
        if stream is not None:
            stream.end()
        else:
            work.stop()
        self._over(work)

    def _over(self, work: Work) -> None:
        """It has ended: a task, a call, or the life of an actor that it made."""
        known = self._tasks.pop(work.task_id, None) is not None
        call = self.calls.pop(work.task_id, None) is not None
        held = work.release()
        if known and not call and work.template is not None:
            held += self._functions.unname(work.template.function_id)
        self._release(held)

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        """As ``Participant.cancel``; what runs in another thread is not interrupted."""
        task_id = origin_of(ref.id)
        work, actor = self._tasks.get(task_id), self.calls.get(task_id)
        if work is None or ref.id in self.objects.outcomes:
            return
        if actor is not None:
            if force:
                raise ValueError(
                    "force=True is not supported for actor tasks: end the actor with "
                    "zray.kill(), or cancel the call without force"
                )
            actor.cancel(work)
            return
        stream = self.streams.get(task_id)
        if stream is not None:
            stream.cancel()
        elif work.is_ready():
            work.cancelled = True
        else:
            self._stop(work)

    # ---- actors ----------------------------------------------------------------------------

    def create_actor(
        self,
        template: m.Template,
        info: m.ActorInfo,
        arguments: serialization.Arguments,
        get_if_exists: bool,
    ) -> tuple[ObjectRef[Any], m.ActorInfo]:
        """As ``ActorCalls.create_actor``; the constructor runs here and now."""
        self._collect()
        place = (info.namespace, info.name)
        other = self._names.get(place) if info.name else None
        if other is not None:
            if get_if_exists:
                return WeakReference(object_id(other.actor_id)), other.info
            raise ActorAlreadyExistsError(
                f"the name {info.name!r} is taken by an actor of the class "
                f"{other.info.class_name} in namespace {info.namespace!r}, so none was made; "
                "choose another name, or get_if_exists=True"
            )
        work = Work(self.objects, self._ids.task_id(), template.name, arguments, template=template)
        make, info = self._class(template, info)
        kind: type[LocalActor] = LocalActor
        if info.is_async:
            kind = AsyncActor
        elif info.max_concurrency > 1 or info.groups:
            kind = ThreadedActor
        actor = kind(
            *(self.objects, work, info, make, self.streams, self),
            *(self._over, self._actor_ended),
        )
        self._actors[actor.actor_id] = actor
        self._tasks[work.task_id] = work
        self._functions.hold(template.function_id)
        if info.name:
            self._names[place] = actor
        handle = object_id(actor.actor_id)
        self.objects.add([handle])
        ref: ObjectRef[Any] = counted(handle)
        if lacks := self._groups.lacks(template):
            actor.end(lacks)
        else:
            self._when_ready(work, lambda _: actor.construct())
        return ref, info

    def _class(
        self, template: m.Template, info: m.ActorInfo
    ) -> tuple[Callable[..., Any], m.ActorInfo]:
        from zray.nodes.imports import Imports

        if not template.by_name:
            return lambda *a, **k: self._functions.load(template)[0](*a, **k), info
        target = self._functions.offer(template.name).target
        spec = m.TaskSpec(bytes(16), template.template_id, b"")
        made = Imports.as_offered(m.Assignment(1, bytes(16), spec, actor=info), template.name)
        assert made.actor is not None
        return target, made.actor

    def _actor_ended(self, actor: LocalActor) -> None:
        if not self.objects.is_held(object_id(actor.actor_id)):
            self._actors.pop(actor.actor_id, None)
        place = (actor.info.namespace, actor.info.name)
        if self._names.get(place) is actor:
            del self._names[place]

    def call_actor(
        self,
        ref: ObjectRef[Any],
        info: m.ActorInfo,
        method: str,
        returned: tuple[int, int, int, bool],
        retries: int,
        arguments: serialization.Arguments,
        group: str,
        retry: bytes,
    ) -> list[ObjectRef[Any]]:
        """As ``ActorCalls.call_actor``; a plain actor's runs here and now, unless that is busy."""
        self._collect()
        actor = self._actors.get(task_of(ref.id))
        unanswered = actor.unanswered() if actor is not None else 0
        if 0 <= info.max_pending_calls <= unanswered:
            raise PendingCallsLimitExceededError(
                f"{unanswered} calls of actor {info.class_name} ({ref.id[:16].hex()}) wait "
                f"already, and max_pending_calls is {info.max_pending_calls}; {method} was not "
                "called. Wait for some results first"
            )
        count, yields, unread_max, _ = returned
        work = Work(
            *(self.objects, self._ids.task_id(), f"{info.class_name}.{method}", arguments),
            parent=self.running_task(),
            method=method,
            group=group,
            num_returns=count,
            yields=yields,
            unread_max=unread_max or info.unread_max,
            retries=retries,
            retry=retry,
            template=actor.template if actor is not None else None,
            portable=info.by_name,
        )
        refs = self._expect(work)
        if actor is None:  # it has ended, and only who looked it up still has a handle
            text = f"the actor has ended; the call did not run ({work.name})"
            self._fail(work, failures.encode(ActorDiedError, text, work.name))
            return refs
        self.calls[work.task_id] = actor
        actor.call(work)
        return refs

    def find_actor(self, namespace: str, name: str) -> tuple[ObjectRef[Any], m.ActorInfo] | None:
        """As ``ActorCalls.find_actor``."""
        self._collect()
        actor = self._names.get((namespace, name))
        if actor is None:
            return None
        return WeakReference(object_id(actor.actor_id)), actor.info

    def kill_actor(self, actor_id: bytes, no_restart: bool) -> None:
        """As ``ActorCalls.kill_actor``."""
        actor = self._actors.get(actor_id)
        if actor is not None and not actor.dead:
            actor.kill(no_restart=no_restart)

    def _end_actors(self, group_id: bytes) -> None:
        """Those of a placement group that is removed."""
        for actor in [*self._actors.values()]:
            template = actor.template
            if template is not None and bundles.group_of(template.resources) == group_id:
                actor.end(f"its placement group {group_id.hex()} was removed", graceful=False)

    def list_actors(self, namespace: str, all_namespaces: bool) -> list[tuple[str, str]]:
        """As ``ActorCalls.list_actors``."""
        self._collect()
        return [place for place in self._names if all_namespaces or place[0] == namespace]

    # ---- what only a cluster has ---------------------------------------------------------------

    def ask(self, make: Callable[[int], m.Message], timeout: float) -> m.Message:
        """As ``Participant.ask``."""
        return self._answers.to(make(0))

    def why(self, thing: Any, timeout: float) -> m.Explanation:
        """Raises ZrayError: nothing waits for a reason that is stored."""
        raise ZrayError(f"{NOT_THERE} (why): what runs in local mode can be seen in the debugger")

    @staticmethod
    def tell_unsaid() -> bool:
        """Nobody is told what the program has recorded."""
        return False

    # ---- end -------------------------------------------------------------------------------

    @staticmethod
    def lost() -> bool:
        """Whether it has ended by itself: never."""
        return False

    def close(self) -> None:
        """End all actors; who waits gets an error."""
        for actor in [*self._actors.values()]:
            actor.end("zray.shutdown() was called")
        self._end_bars()
        self.closed = True

    def abandon(self) -> None:
        """In a forked child: its parent goes on with it."""
        self.closed = True


def _record(work: Work, retry: Any, error: Exception) -> bytes | None:
    return None if covers(retry, error) and work.retries else work.record(error)
