"""The functions and templates that a node's workers have sent to the head, and still need.

A function is told again in each session until the head has stored it, a template always. What
several workers name is needed until the last of them has let it go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from zray.ids import split_tasks
from zray.protocol.messages import Export, Exported, Forget, Message, Template


class WorkerDefinitions:
    """Of all workers of one incarnation of the raylet.

    Args:
        tell_head: as ``HeadSession.tell``.
        number: for what a worker says under a number of its own, one that the head may refuse.
        unnumber: the head will not refuse that any more.
        needed: templates of a worker's tasks whose outcomes may get lost, and be asked for again.

    Attributes:
        templates: all that are needed, by id.
        leaving: by worker: functions that it needs no more, but for what is ``needed``.
    """

    def __init__(
        self,
        tell_head: Callable[[Message], None],
        number: Callable[[bytes, int], int],
        unnumber: Callable[[bytes, int], None],
        needed: Callable[[bytes], set[bytes]],
    ) -> None:
        self._tell_head = tell_head
        self._number = number
        self._unnumber = unnumber
        self._needed = needed
        self.templates: dict[bytes, Template] = {}
        self.leaving: dict[bytes, dict[bytes, None]] = {}
        # What each worker may name: its templates by function.
        self._functions: dict[bytes, dict[bytes, dict[bytes, Template]]] = {}
        self._users: dict[bytes, int] = {}  # template -> how many workers may name it
        self._exports: dict[bytes, Export] = {}  # not yet known to be durable

    def employ(self, worker_id: bytes) -> None:
        """There is such a worker."""
        self._functions[worker_id] = {}

    def dismiss(self, worker_id: bytes) -> None:
        """The worker has ended; the head hears of that, and forgets by itself."""
        for function_id in [*self._functions[worker_id]]:
            self._forget(worker_id, function_id)
        del self._functions[worker_id]
        self.leaving.pop(worker_id, None)

    def returns(self, template_id: bytes) -> int:
        """How many objects a task of that template returns."""
        template = self.templates.get(template_id)
        return template.num_returns if template is not None else 1

    def is_named(self, function_id: bytes) -> bool:
        """Whether a worker of this node may name the function."""
        return any(function_id in functions for functions in self._functions.values())

    # ---- from workers ----------------------------------------------------------------------

    def on_template(self, worker_id: bytes, message: Template) -> None:
        """Pass it on, once for all workers of the node."""
        templates = self._functions[worker_id].setdefault(message.function_id, {})
        self._stays(worker_id, message.function_id)
        template_id = message.template_id
        if template_id not in templates:
            number = self._number(worker_id, message.seq)
            templates[template_id] = replace(message, seq=number, holder=worker_id)
            self.templates[template_id] = message
            self._users[template_id] = self._users.get(template_id, 0) + 1
        self._tell_head(templates[template_id])

    def on_export(self, worker_id: bytes, message: Export) -> None:
        """Pass a function on, and keep it until the head has stored it."""
        self._functions[worker_id].setdefault(message.function_id, {})
        self._stays(worker_id, message.function_id)
        number = self._number(worker_id, message.seq)
        export = replace(message, seq=number, holder=worker_id)
        self._exports[message.function_id] = export
        self._tell_head(export)

    def on_forget(self, worker_id: bytes, message: Forget) -> None:
        """The worker has let functions go; all that it made of them has ended, for all it knows."""
        leaving = self.leaving.setdefault(worker_id, {})
        leaving.update(dict.fromkeys(split_tasks(message.function_ids)))
        self.let_go(worker_id)

    def let_go(self, worker_id: bytes) -> None:
        """Forget, of the functions that leave, those that nothing needs by now."""
        functions, leaving = self._functions[worker_id], self.leaving[worker_id]
        needed = self._needed(worker_id)
        gone = [one for one in leaving if needed.isdisjoint(functions.get(one, ()))]
        for function_id in gone:
            self._stays(worker_id, function_id)
            self._forget(worker_id, function_id)
        if gone:
            self._tell_head(Forget(0, b"".join(gone), worker_id))

    def _stays(self, worker_id: bytes, function_id: bytes) -> None:
        leaving = self.leaving.get(worker_id)
        if leaving is not None:
            leaving.pop(function_id, None)
            if not leaving:
                del self.leaving[worker_id]

    def _forget(self, worker_id: bytes, function_id: bytes) -> None:
        for template_id, template in self._functions[worker_id].pop(function_id, {}).items():
            self._unnumber(worker_id, template.seq)
            self._users[template_id] -= 1
            if not self._users[template_id]:
                del self._users[template_id], self.templates[template_id]
        export = self._exports.get(function_id)
        if export is not None and export.holder == worker_id:
            del self._exports[function_id]
            for other, functions in self._functions.items():
                if function_id in functions:
                    self._exports[function_id] = replace(export, holder=other)

    # ---- sessions --------------------------------------------------------------------------

    def on_exported(self, message: Exported) -> None:
        """The head has stored these functions, unless they were let go and sent again since."""
        for function_id in message.function_ids:
            export = self._exports.get(function_id)
            if export is not None and export.seq == message.about:
                del self._exports[function_id]

    def resume(self) -> None:
        """Tell a new session what it may not have stored."""
        for export in self._exports.values():
            self._tell_head(export)

    def of_worker(self, worker_id: bytes) -> Iterator[Template]:
        """What it may name, as a new session is told of it."""
        for templates in self._functions[worker_id].values():
            yield from templates.values()
