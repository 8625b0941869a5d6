"""The tasks of a driver that do not go by way of the head, from when they are submitted to the end.

Their results are the process's own, as those of actors' calls are. Which worker gets which is for
`lease_queues`; what cannot go this way, or may not any more, is handed over to `tasks`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container

from msgspec.structs import replace

from zray import limits
from zray.core import failures, resources
from zray.core.client.call_results import CallResults
from zray.core.client.definitions import ClientDefinitions
from zray.core.client.lease import Lease, LeasedTemplate, PendingTask
from zray.core.client.lease_class import EXACT, LeaseClass, LeaseClasses
from zray.core.client.references import ClientReferences
from zray.core.identity import Identity
from zray.errors import NodeDiedError, TaskCancelledError, WorkerCrashedError, ZrayError
from zray.ids import object_id
from zray.protocol import messages as m

DEPENDENCY_BYTES = 64  # of a packet, beside its value


class LeasedTasks:
    """Args:
    outcomes: those known here.
    unresolved: tasks that go by way of the head, until that tells how they ended.
    results: of tasks and calls that have none.
    by_head: takes over a task, and its returns; at once, if the third is true.
    taken_back: what a worker has not begun, out of its queue.
    remote: only a driver has leases.
    """

    def __init__(
        self,
        *,
        me: Identity,
        outbox: list[m.Message],
        outcomes: dict[bytes, m.Outcome],
        unresolved: Container[bytes],
        results: CallResults,
        classes: LeaseClasses,
        references: ClientReferences,
        definitions: ClientDefinitions,
        by_head: Callable[[m.TaskSpec, list[bytes], bool], None],
        taken_back: Callable[[Lease], list[PendingTask]],
        remote: bool,
    ) -> None:
        self._me = me
        self._outbox = outbox
        self._outcomes = outcomes
        self._unresolved = unresolved
        self._results = results
        self._classes = classes
        self._references = references
        self._definitions = definitions
        self._by_head = by_head
        self._taken_back = taken_back
        self._remote = remote
        self._templates: dict[bytes, LeasedTemplate | None] = {}
        self._by_task: dict[bytes, PendingTask] = {}
        self._dependents: dict[bytes, list[PendingTask]] = {}  # by awaited result
        self.fresh = 0  # since the last flush
        self._told_of_running = False  # the head may take a task for one that runs

    def __len__(self) -> int:
        """How many tasks have no outcome."""
        return len(self._by_task)

    def __contains__(self, task_id: bytes) -> bool:
        """Whether the task is one of them."""
        return task_id in self._by_task

    def dependents(self) -> bool:
        """Whether tasks wait for results of others."""
        return bool(self._dependents)

    def submit(self, spec: m.TaskSpec, num_returns: int) -> list[bytes] | None:
        """Queue a task; the ids of its returns, for each of which the caller makes a reference.

        None: it goes by way of the head.
        """
        template_id = spec.template_id
        template = self._templates.get(template_id) or self._template(template_id)
        if template is None or template.stays or spec.parent or self._definitions.refused:
            return None
        group = self._classes[template.key]
        if not (group.open or group.window):
            return None
        missing = self._missing(spec) if spec.dependencies else 0
        if missing < 0:
            return None
        if group.open and not (group.leases or group.told or group.waiting or missing):
            group.expected = True  # a lease would take longer than this task
            self._classes.dirty[group.key] = None
            return None
        task = PendingTask(spec, template)
        task_id = spec.task_id
        if spec.dependencies or spec.nested:
            for oid in (*spec.dependencies, *spec.nested):
                self._references.add(oid)
            self._references.passed_on((*spec.dependencies, *spec.nested))
        self._definitions.use(template_id)
        self._by_task[task_id] = task
        returns = [object_id(task_id, index) for index in range(num_returns)]
        awaited, count = self._results.awaited, self._references.count
        for oid in returns:
            awaited[oid] = task
            count(oid)
        if missing:
            task.waiting = missing
            for oid in spec.dependencies:
                if oid not in self._outcomes:
                    self._dependents.setdefault(oid, []).append(task)
        else:
            task.queued = True
            group.waiting.append(task)
            self._classes.dirty[group.key] = None
        self.fresh += 1
        return returns

    def _template(self, template_id: bytes) -> LeasedTemplate | None:
        """What is known of a template whose tasks may go this way."""
        found = self._templates.get(template_id, self)
        if not isinstance(found, LeasedTasks):
            return found
        if len(self._templates) > 2 * len(self._definitions.templates) + EXACT:
            kept = self._definitions.templates
            self._templates = {key: one for key, one in self._templates.items() if key in kept}
        template = None
        message = self._definitions.templates.get(template_id)
        if message is not None and self._remote and message.priority:
            self._rank(self._classes.of(resources.needs(message.resources)))
        elif message is not None and self._remote and self._may_lease(message):
            key = resources.needs(message.resources)
            template = LeasedTemplate(message, key)
            self._classes.of(key)
        self._templates[template_id] = template
        return template

    def _may_lease(self, message: m.Template) -> bool:
        needs = resources.needs(message.resources)
        takes_cpu = bool(resources.countable(needs)) and resources.is_cpu_only(needs)
        near = message.function_id in self._definitions.near
        return takes_cpu and near and not (message.by_name or message.labels)

    def _rank(self, group: LeaseClass) -> None:
        """From now on the tasks of a class go by their priorities, which the head keeps."""
        if group.ranked:
            return
        group.ranked = True
        group.open, group.window = False, 0
        self._classes.dirty[group.key] = None
        for lease in [*group.leases.values()]:
            self.again(self._taken_back(lease))

    def _missing(self, spec: m.TaskSpec) -> int:
        """How many arguments are results of such tasks that are not there yet.

        -1: the task cannot go this way.
        """
        size = len(spec.arguments) + DEPENDENCY_BYTES * len(spec.dependencies)
        missing = 0
        for oid in spec.dependencies:
            outcome = self._outcomes.get(oid)
            if outcome is None:
                if not isinstance(self._results.awaited.get(oid), PendingTask):
                    return -1
                missing += 1
            elif not _travels(outcome):
                return -1
            else:
                size += len(outcome.value)
        return missing if size <= limits.LEASE_TASK_BYTES_MAX else -1

    def _queue(self, group: LeaseClass, task: PendingTask) -> None:
        task.queued = True
        group.waiting.append(task)
        self._classes.dirty[group.key] = None

    def _arguments_came(self, task: PendingTask) -> None:
        """All that the task needs is here: it can go, if it can go this way."""
        spec = task.spec
        for oid in spec.dependencies:
            outcome = self._outcomes[oid]
            if outcome.kind & m.ERROR and _travels(outcome):
                self._fail(task, failures.of_argument(outcome.value, task.template.message.name))
                return
        group = self._classes[task.template.key]
        if group.open and not self._missing(spec):
            self._queue(group, task)
        else:
            self.hand_over([task])

    def hand_over(self, tasks: list[PendingTask]) -> None:
        """These go by way of the head, and behind them those that wait for their results."""
        following = deque(tasks)
        while following:
            task = following.popleft()
            spec = task.spec
            task.queued = False
            if self._by_task.pop(spec.task_id, None) is None:
                continue
            if task.failures:
                spec = replace(spec, failures=task.failures)
            returns = self._returns(task)
            self._by_head(spec, returns, task.made)
            for oid in returns if self._dependents else ():
                following += self._dependents.pop(oid, ())

    @staticmethod
    def _returns(task: PendingTask) -> list[bytes]:
        count = task.template.message.num_returns
        return [object_id(task.spec.task_id, index) for index in range(count)]

    def hand_over_some(self, group: LeaseClass) -> None:
        """What waits in a class goes by way of the head: so much as holds nobody up."""
        room = group.room(self._unresolved)
        count = min(len(group.waiting), room, limits.LEASE_HAND_OVER_TASKS)
        tasks = [group.waiting.popleft() for _ in range(count)]
        if group.window:
            group.at_head.update((task.spec.task_id, None) for task in tasks)
        self.hand_over(tasks)

    def lease_of(self, task_id: bytes) -> Lease | None:
        """Under which lease it runs or waits, if it does."""
        task = self._by_task.get(task_id)
        return task.lease if task is not None else None

    def tiny(self) -> list[str]:
        """Functions whose tasks take less than zray needs for each, where very many have run."""
        most = {key: one.finished >= limits.ADVICE_TINY_TASKS for key, one in self._classes.items()}
        found: list[str] = []
        for template in self._templates.values():
            if template is None or template.seconds is None or not most.get(template.key):
                continue
            if template.seconds >= limits.ADVICE_TINY_S:
                most[template.key] = False  # these may be the many
            else:
                found.append(template.message.name)
        return found

    def finished(self) -> int:
        """How many tasks have ended at leased workers."""
        return sum(one.finished for one in self._classes.values())

    # ---- ends ------------------------------------------------------------------------------

    def ended(self, task: PendingTask, done: m.TaskDone) -> None:
        """A worker has ended an attempt."""
        if done.status == m.FINISHED:
            self._classes[task.template.key].finished += 1
            task.template.measured(done.seconds)
            self._resolve(task, done.results)
        elif task.cancelled is not None or done.status == m.CANCELLED:
            self._cancelled(task)
        elif task.may_retry():
            self._retry(task)
        else:
            self._resolve(task, done.results)

    def again(self, tasks: list[PendingTask]) -> None:
        """These have not begun: they wait once more, before all others."""
        over = []
        for task in reversed(tasks):
            group = self._classes[task.template.key]
            if task.cancelled is not None:
                self._cancelled(task)
            elif group.open:
                task.queued = True
                group.waiting.appendleft(task)
                self._classes.dirty[group.key] = None
            else:
                over.append(task)
        self.hand_over(over[::-1])

    def _retry(self, task: PendingTask) -> None:
        """Behind all others: what fails again and again does not keep them waiting."""
        task.failures += 1
        task.attempt += 1
        group = self._classes[task.template.key]
        group.retried += 1
        if group.open:
            self._queue(group, task)
        else:
            self.hand_over([task])

    def timed_out(self, task: PendingTask, ended: m.LeaseEnded) -> None:
        """The task ran too long, and its worker was killed, as it did not stop."""
        if task.cancelled is not None:
            self._cancelled(task)
        elif ended.status == m.FAILED and task.may_retry():
            self._retry(task)
        else:
            where, node, _ = _place(ended.text)
            how = f"did not stop: its worker {where} was killed"
            message = task.template.message
            value = failures.of_timeout(message.name, message.timeout_s, how, node)
            self._keep(task, node, value)
            self._fail(task, value)

    def crashed(self, task: PendingTask, text: str) -> None:
        """The worker died, or its node did, and may have begun the task.

        ``text``: as in LEASE_ENDED.
        """
        if task.cancelled is not None:
            self._cancelled(task)
        elif task.may_retry():
            self._retry(task)
        else:
            where, node, cause = _place(text)
            if where.startswith("(pid"):
                name = task.template.message.name
                died = f"the worker {where} that ran {name} died: {cause}"
                value = failures.encode(WorkerCrashedError, died, name, node)
                self._keep(task, node, value)
                self._fail(task, value)
            else:
                self._fail_of(task, NodeDiedError, f"{cause}; it held the task", node)

    def _keep(self, task: PendingTask, node: str, error: bytes) -> None:
        """A node keeps what it takes to run the task again: its worker died, and cannot tell."""
        from zray.protocol import failed_run  # loaded with the first death

        template, spec = task.template.message, task.spec
        function = self._definitions.near.get(template.function_id)
        if function is not None and template.events:
            made = m.Assignment(task.attempt, self._me.job_id, spec, task.failures)
            values = [self._outcomes[oid] for oid in spec.dependencies]
            text = failures.read(error).message
            what = (made, template, function, values, error, text, (node, 0))
            if (kept := failed_run.of_dead_worker(*what)) is not None:
                self._outbox.append(kept)

    def _cancelled(self, task: PendingTask) -> None:
        self._fail_of(task, TaskCancelledError, "the task was cancelled")

    def _fail_of(
        self, task: PendingTask, error: type[ZrayError], text: str, node: str = ""
    ) -> None:
        name = task.template.message.name
        text = f"{text} (task {name} {task.spec.task_id.hex()})"
        self._fail(task, failures.encode(error, text, name, node))

    def _fail(self, task: PendingTask, value: bytes) -> None:
        returns = task.template.message.num_returns
        self._resolve(task, failures.outcomes(task.spec.task_id, returns, value))

    def _resolve(self, task: PendingTask, outcomes: list[m.Outcome]) -> None:
        results, references = self._results, self._references
        came: list[PendingTask] = []
        stays = needed = False
        for outcome in outcomes:
            oid = outcome.object_id
            if results.awaited.pop(oid, None) is None:
                continue
            promised = bool(results.promised) and results.take_promise(oid)
            if outcome.kind & m.LOCATED:
                references.take_located(outcome, promised=promised)
                if not outcome.kind & m.ERROR:
                    stays, needed = True, needed or promised or oid in references
            else:
                references.take_result(outcome, promised=promised)
            if self._dependents:
                for dependent in self._dependents.pop(oid, ()):
                    dependent.waiting -= 1
                    if not dependent.waiting and dependent.spec.task_id in self._by_task:
                        came.append(dependent)
        if stays:
            task.template.stays = True
        if needed or task.made:
            self._made_large(task)
        for dependent in came:
            self._arguments_came(dependent)
        self._end(task)

    def yielded_large(self, task_id: bytes) -> None:
        """An item is with a node; the task, if it is one of these, may run again for it."""
        task = self._by_task.get(task_id)
        if task is not None and not task.made:
            task.made = self._told_of_running = True
            self._made_large(task, runs=True)

    def _made_large(self, task: PendingTask, *, runs: bool = False) -> None:
        """A value is with a node: should that be lost, the head has it made again.

        ``runs``: once the task has ended, of which it is told then.
        """
        spec = replace(task.spec, failures=task.failures)
        if task.template.message.max_retries:
            self._references.flush_holds()
            self._references.publish([*spec.dependencies, *spec.nested])
            self._outbox.append(m.Made(0, self._me.process_id, self._me.job_id, [spec], runs))

    def _end(self, task: PendingTask) -> None:
        spec = task.spec
        del self._by_task[spec.task_id]
        if spec.dependencies or spec.nested:
            for oid in (*spec.dependencies, *spec.nested):
                self._references.remove(oid)
        self._definitions.unuse(spec.template_id)

    # ---- cancelling and giving up ----------------------------------------------------------

    def cancel(self, task_id: bytes, force: bool, recursive: bool) -> bool:
        """Cancel a task; False: it is none of these."""
        task = self._by_task.get(task_id)
        if task is None:
            return False
        if recursive:  # of the task itself the head knows nothing
            self._outbox.append(m.Cancel(0, task_id, force, recursive))
        lease = task.lease
        if lease is None:
            self._withdraw(task)
            self._cancelled(task)
            return True
        what = (lease.lease_id, task_id, task.attempt, force, recursive)
        task.cancelled = m.CancelLeased(0, *what)
        self.again(self._taken_back(lease))
        if task.lease is lease and lease.asked:
            lease.cancels.append(task)
        elif task.lease is lease:
            self._outbox.append(task.cancelled)
        self._classes.dirty[lease.key] = None
        return True

    def _withdraw(self, task: PendingTask) -> None:
        if task.queued:
            self._classes[task.template.key].waiting.remove(task)

    def definition_refused(self) -> None:
        """The head has refused a function: the tasks that are made of it will not be."""
        for task in [*self._by_task.values()]:
            refusal = self._definitions.refusal(task.spec.template_id)
            if refusal is not None and task.lease is None:
                self._withdraw(task)
                self.hand_over([task])

    def resume(self) -> None:
        """Tell a new session what is to be cancelled, and what runs that it was told of."""
        for task in self._by_task.values():
            if task.cancelled is not None:
                self._outbox.append(task.cancelled)
        made = [task for task in self._by_task.values() if task.made]
        for task in made:
            self._made_large(task, runs=True)
        if self._told_of_running:
            self._told_of_running = bool(made)
            running = b"".join(task.spec.task_id for task in made)
            self._outbox.append(m.Made(0, self._me.process_id, self._me.job_id, [], True, running))

    def like(self, oid: bytes) -> bytes:
        """A result that waits at the head for what this one waits for here; or empty."""
        task = self._results.awaited.get(oid)
        if isinstance(task, PendingTask) and task.queued:
            group = self._classes[task.template.key]
            if not group.open and not group.room(self._unresolved):
                return object_id(next(iter(group.at_head)))
        return b""

    def reason(self, oid: bytes) -> str:
        """What a task waits for, as far as this process knows."""
        task = self._results.awaited.get(oid)
        if not isinstance(task, PendingTask):
            return ""
        name = task.template.message.name
        lease = task.lease
        if lease is None and task.waiting:
            return f"WAIT_DEPS: {name} waits for {task.waiting} of its arguments"
        if lease is None:
            needs = resources.in_words(task.template.key)
            workers = len(self._classes[task.template.key].leases)
            return (
                f"WAIT_RESOURCES: needs {needs}; all of it is in use, and the {workers} workers "
                f"that are leased to this process have other tasks before it (task {name})"
            )
        before = [*lease.inflight].index(task.spec.task_id)
        behind = f", behind {before} others" if before else ""
        cut = lease.far is not None and not lease.far.linked
        where = f"{lease.node} (the connection to it is cut)" if cut else lease.node
        return (
            f"LEASED: {name} is with node {where}, in a worker that is leased to this process"
            f"{behind}, attempt {task.attempt}"
        )


def _place(text: str) -> tuple[str, str, str]:
    """Where a worker died, if it did, on which node, and of what, from the text of LEASE_ENDED."""
    where, cause = text.split("\n", 1) if "\n" in text else ("", text)
    return where, where.strip("()").rpartition("node ")[2], cause


def _travels(outcome: m.Outcome) -> bool:
    """Whether the value can go along with a task, and needs nobody else to be held."""
    whole = type(outcome.value) is bytes and not outcome.kind & m.LOCATED
    return whole and not outcome.contained
