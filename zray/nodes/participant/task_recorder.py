"""When tasks and calls are submitted, noted while somebody records a timeline, and else at no cost.

A participant that records has other methods in place of some of its own, for as long as that lasts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from zray import limits
from zray.ids import origin_of
from zray.protocol import messages as m


class TaskRecorder:
    """Of one participant. ``submits``: the last ones since somebody began to record."""

    def __init__(self, participant: Any) -> None:
        self._participant = participant
        self._until = 0.0
        self._before: dict[tuple[int, str], tuple[Any, Any]] = {}  # what a method was, of whom
        self.submits: deque[m.Submitted] = deque(maxlen=limits.SUBMITS_KEPT_MAX)
        self.loaded: dict[bytes, float] = {}  # when arguments were there, by perf_counter

    # ---- beginning and end -----------------------------------------------------------------

    def record(self, seconds: float) -> None:
        """Note what is submitted from now on, for so many seconds."""
        if not self._before:
            self.submits.clear()
            self.loaded.clear()
            self._wrap(self._participant, "submit", self._submitting)
            self._wrap(self._participant, "call_actor", self._calling)
            self._wrap(self._participant, "create_actor", self._creating)
        self._until = time.monotonic() + seconds

    def watch_arguments(self, owner: Any, method: str, task_of: Callable[[Any], bytes]) -> None:
        """Note when ``owner``, which runs tasks, has their arguments, for the same time."""

        def watching(load: Callable[..., Any]) -> Callable[..., Any]:
            def loading(what: Any) -> Any:
                found = load(what)
                if self._goes_on() and len(self.loaded) < limits.SUBMITS_KEPT_MAX:
                    self.loaded[task_of(what)] = time.perf_counter()
                return found

            return loading

        if (id(owner), method) not in self._before:
            self._wrap(owner, method, watching)

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        self._before[id(owner), name] = (owner, vars(owner).get(name))
        setattr(owner, name, around(getattr(owner, name)))

    def _goes_on(self) -> bool:
        """Whether it does; else all is as it was before."""
        if time.monotonic() < self._until:
            return True
        for (_, name), (owner, before) in [*self._before.items()]:
            if before is None:
                vars(owner).pop(name, None)
            else:
                setattr(owner, name, before)
        self._before.clear()
        return False

    # ---- what is noted ---------------------------------------------------------------------

    def _submitting(self, submit: Callable[..., Any]) -> Callable[..., Any]:
        def submitting(template: m.Template, arguments: Any) -> Any:
            began = time.time()
            refs = submit(template, arguments)
            self._note(refs[0].id if refs else b"", template.name, began, arguments, False)
            return refs

        return submitting

    def _calling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(ref: Any, info: m.ActorInfo, method: str, *rest: Any) -> Any:
            began = time.time()
            refs = call(ref, info, method, *rest)
            arguments = next((one for one in rest if hasattr(one, "dependencies")), None)
            name = f"{info.class_name}.{method}"
            self._note(refs[0].id if refs else b"", name, began, arguments, True)
            return refs

        return calling

    def _creating(self, create: Callable[..., Any]) -> Callable[..., Any]:
        def creating(template: m.Template, info: m.ActorInfo, arguments: Any, *rest: Any) -> Any:
            began = time.time()
            made = create(template, info, arguments, *rest)
            self._note(made[0].id, f"{info.class_name}.__init__", began, arguments, True)
            return made

        return creating

    def _note(self, oid: bytes, name: str, began: float, arguments: Any, is_call: bool) -> None:
        if not (self._goes_on() and oid):
            return
        used: list[bytes] = []
        if arguments is not None:
            found = (*arguments.dependencies, *arguments.nested)
            used = [*dict.fromkeys(map(origin_of, found))][: limits.USES_TOLD_MAX]
        parent = self._participant.running_task()
        seconds = time.time() - began
        task_id = origin_of(oid)
        name = name[: limits.NAME_MAX]
        self.submits.append(m.Submitted(task_id, name, began, seconds, parent, used, is_call))
