"""Between messages and user code: a task's function, arguments and results, and what it raised."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.core import failures
from zray.core.client.waiters import Waiter
from zray.core.worker.task_inbox import Delivered, TaskInbox
from zray.errors import NameNotOfferedError, ObjectLostError, RuntimeEnvSetupError
from zray.ids import object_id
from zray.nodes.imports import Imports
from zray.nodes.participant.shared_values import bytes_of, load
from zray.nodes.worker.streams import Source, StreamServer
from zray.protocol import messages as m
from zray.runtime import breakpoint_hook, pickling, serialization, task_errors
from zray.runtime.environment import run_hook, take_on
from zray.runtime.large_functions import LargeFunction
from zray.runtime.retries import covers
from zray.runtime.returns import collected, encoded, only, several

if TYPE_CHECKING:
    from zray.nodes.worker.host import Host

Function = Callable[..., Any]


class HookFailedError(RuntimeEnvSetupError):
    """Nothing runs in this process, as what was to run first has failed."""


class UserCode:
    def __init__(self, worker: Host, task_inbox: TaskInbox, streams: StreamServer) -> None:
        self._worker = worker
        self._streams = streams
        self._task_inbox = task_inbox
        self._functions: dict[bytes, tuple[Function, Any]] = {}
        self.imports = Imports()
        self._not_set_up = ""  # why
        self._shared: dict[bytes, m.Outcome | None] = {}  # large, which the next task may need

    @property
    def node(self) -> str:
        """The name of this worker's node, or empty."""
        return self._task_inbox.setup.node_name if self._task_inbox.setup is not None else ""

    def error(
        self, error: BaseException, name: str, actor_id: bytes = b"", actor: Any = None
    ) -> bytes:
        """The record of what user code raised, in a task or a method of an actor."""
        node = self.node
        if breakpoint_hook.wants_post_mortem() and isinstance(error, Exception):
            breakpoint_hook.post_mortem(error)
        if isinstance(error, NameNotOfferedError):
            return failures.encode(NameNotOfferedError, str(error.args[0]), name, node)
        if isinstance(error, HookFailedError):
            return failures.encode(RuntimeEnvSetupError, str(error.args[0]), name, node)
        return task_errors.dump_exception(error, name, node, os.getpid(), actor_id, actor)

    def set_up(self, environment: m.Environment) -> None:
        """Take on what all that runs here has; if the hook fails, nothing runs."""
        take_on(environment)
        try:
            run_hook(environment)
        except BaseException as error:
            said = "".join(traceback.format_exception(error))[-limits.BUILD_TEXT_MAX :]
            name = environment.hook_name
            self._not_set_up = f"worker_process_setup_hook {name} failed:\n{said}"

    def function(self, template: m.Template, is_class: bool) -> tuple[Function, Any]:
        if self._not_set_up:
            raise HookFailedError(self._not_set_up)
        if template.by_name:
            assert self._task_inbox.setup is not None
            offer = self.imports.find(template.name, self._task_inbox.setup, is_class=is_class)
            return offer.target, offer.retry
        while self._task_inbox.forgotten:
            self._functions.pop(self._task_inbox.forgotten.pop(), None)
        found = self._functions.get(template.function_id)
        if found is None:
            blob = self._task_inbox.functions[template.function_id].blob
            found = serialization.loads_function(blob)
            if isinstance(found[0], LargeFunction):
                found = self._large(found[0], template.name)
            self._functions[template.function_id] = found
        return found

    def _large(self, large: LargeFunction, name: str) -> tuple[Function, Any]:
        """It is an object of the cluster's.

        Raises:
            ObjectLostError: that is lost.
        """
        try:
            return serialization.loads_function(self._worker.get([large.ref], None)[0])
        except ObjectLostError as error:
            raise ObjectLostError(
                f"{name.removesuffix('.__init__')} captures so much that its code is an object of "
                f"the cluster, and that is lost: {error.object_ref_hex}. Define it again in a "
                "program that stays connected, or capture less"
            ) from None

    def keep_task(self, delivered: Delivered, template: m.Template, error: bytes) -> None:
        """A task has ended with that error, or a constructor: the node keeps what it takes to run
        it again."""
        if self._worker.teller.keeps():
            from zray.nodes.worker import failed_runs  # loaded with the first failure

            what = (self._worker, self.take, delivered, template, error)
            self._worker.teller.keep(partial(failed_runs.of_task, *what))

    def keep_call(self, actor: Any, entry: Any, error: bytes) -> None:
        """The same of a call of the actor that this process is."""
        if self._worker.teller.keeps() and not entry.call.quiet:
            from zray.nodes.worker import failed_runs

            self._worker.teller.keep(
                partial(failed_runs.of_call, self._worker, actor, entry, error)
            )

    def retries(self, template: m.Template, error: BaseException) -> bool:
        """Whether a task is to be made again that fails of this."""
        try:
            return covers(self.function(template, False)[1], error)
        except BaseException:
            return False  # it cannot be loaded, which is told when it is to run

    def arguments(self, delivered: Delivered) -> tuple[tuple[Any, ...], dict[str, Any]]:
        spec = delivered.assignment.spec
        data = spec.arguments
        values = delivered.values
        if not (values or spec.nested):
            return serialization.loads_arguments(data, values)
        located = [value.object_id for value in values if value.kind & m.LOCATED]
        with self._worker.lock:
            self._worker.client.references.begin_task([*spec.nested, *located])
            if located:
                values = self._located_values(values, located)
        loaded = [load(outcome) for outcome in values[spec.boxed :]]
        if spec.boxed:
            return serialization.loads_arguments(bytes_of(values[0]), loaded)
        return serialization.loads_arguments(data, loaded)

    def _located_values(self, values: list[m.Outcome], located: list[bytes]) -> list[m.Outcome]:
        """The task's large arguments, from the node's store; the task itself holds them."""
        found = {oid: self._shared.get(oid) or self._worker.offered(oid) for oid in located}
        wanted = [oid for oid, outcome in found.items() if outcome is None]
        if wanted:
            found.update(self.take(wanted))
        self._shared = found
        if (following := self._task_inbox.next_values()) is not None:
            follow = {value.object_id for value in following}
            self._shared = {oid: value for oid, value in found.items() if oid in follow}
        return [found.get(value.object_id) or value for value in values]

    def rest(self) -> None:
        """There is no next task."""
        self._shared = {}
        self._worker.forget_offered()

    def take(self, wanted: list[bytes]) -> dict[bytes, m.Outcome | None]:
        """Values of the node's store, of objects that somebody holds. With the lock held."""
        client = self._worker.client
        waiter = Waiter()
        for oid in wanted:
            client.references.add(oid)
            client.want_located(oid, waiter)
        if waiter.remaining > 0:
            self._worker.flush()
            self._worker.wait_for(waiter)
        found = dict(zip(wanted, self._worker.here_again(wanted), strict=True))
        for oid in wanted:
            client.references.remove(oid)
        return found

    def yielded(
        self,
        spec: m.TaskSpec,
        template: m.Template,
        values: Any,
        retry: Any,
        failed: Callable[[bytes], None],
    ) -> Any:
        """What the task returns that has returned a generator, which runs here.

        ``retry``: its ``retry_exceptions``. ``failed``: takes the error that it ends with.
        """

        def record(error: Exception) -> bytes | None:
            if covers(retry, error):
                return None
            data = self.error(error, template.name)
            failed(data)
            return data

        if template.yields == m.REFERENCES:
            return collected(values, template.name, self._worker, record, spec.task_id)
        source = Source(
            *(spec.task_id, spec.consumer, template.unread_max, template.name, template.by_name),
            *(self._worker.tell_items, bool, record, frozenset(spec.wanted)),
        )
        self._streams.drive(source, values)
        return None

    def outcomes(self, task_id: bytes, template: m.Template, value: Any) -> list[m.Outcome]:
        count = template.num_returns
        if count == 1 and not template.by_name:
            data = serialization.dumps_atom(value, limits.INLINE_BYTES_MAX)
            if data is not None:
                return [m.Outcome(object_id(task_id), m.VALUE, len(data), data)]
        values = [value]
        if count == 0:
            values = [None]
        elif count > 1:
            values = several(value, count, template.name)
        elif type(value) is GeneratorType:
            values = [only(value, template.name)]
        outcomes: list[m.Outcome] = []
        try:
            for index, one in enumerate(values):
                what = f"the result of {template.name}"
                outcomes.append(self._outcome(object_id(task_id, index), one, what, template))
            if count > 1:
                references = sum(len(outcome.contained) for outcome in outcomes)
                pickling.check_count(references, f"the results of {template.name}")
        except BaseException:
            self._worker.unkeep(outcomes)
            raise
        return outcomes

    def _outcome(self, oid: bytes, value: Any, what: str, template: m.Template) -> m.Outcome:
        parts = encoded(value, what, portable=template.by_name)
        if parts.contained:
            with self._worker.lock:  # while ``value`` has its references
                self._worker.client.references.publish(parts.contained)
                self._worker.keep_drops()
        return self._worker.kept(parts, oid)
