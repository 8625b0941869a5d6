"""The part of the Client that knows its functions, and the templates that name them.

A function is named by things of the user's (a remote function, a class of actors). When the last
of these is gone and everything made of it has its outcome, it is let go, here and in the cluster.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from zray import limits
from zray.protocol import messages as m


class ClientDefinitions:
    """``remote``: as for the client. A worker's node tells a new session of what it has sent.

    ``publish``: references to these leave the process. ``number``: of what the head may refuse.
    """

    def __init__(
        self,
        outbox: list[m.Message],
        publish: Callable[[list[bytes]], None],
        number: Callable[[], int],
        *,
        remote: bool,
    ) -> None:
        self._outbox = outbox
        self._publish = publish
        self._next_number = number
        self._remote = remote
        self.templates: dict[bytes, m.Template] = {}
        self._exports: dict[bytes, m.Export | None] = {}  # None: others keep it by now
        self.near: dict[bytes, m.Export] = {}  # small ones, for workers that are leased
        self._of_functions: dict[bytes, dict[bytes, None]] = {}  # function -> templates
        self._uses: dict[bytes, int] = {}  # template -> tasks and creations without an outcome
        self._names: dict[bytes, int] = {}  # function -> by how many things it is named
        self._unnamed: dict[bytes, None] = {}  # functions that nothing names any more
        self._told: dict[int, bytes] = {}  # what the head may refuse -> function
        self.refused: dict[bytes, tuple[str, str]] = {}  # function -> code and text
        self.urgent: dict[bytes, None] = {}  # templates of tasks that go before most others
        # Effect: functions that leased workers need not keep, and their templates.
        self.let_go: list[tuple[bytes, list[bytes]]] = []

    def export(self, message: m.Export) -> None:
        """Send a function, unless it was."""
        function_id = message.function_id
        self._unnamed.pop(function_id, None)
        if function_id not in self._exports:
            self._publish(message.contained)
            message = replace(message, seq=self._number(function_id))
            self._exports[function_id] = message if self._remote else None
            if self._remote and len(message.blob) <= limits.LEASE_FUNCTION_BYTES_MAX:
                self.near[function_id] = message
            self._outbox.append(message)

    def template(self, message: m.Template) -> None:
        """Send a template, unless it was."""
        template_id = message.template_id
        if template_id not in self.templates:
            message = replace(message, seq=self._number(message.function_id))
            self.templates[template_id] = message
            self._uses[template_id] = 0
            if message.priority > 0:
                self.urgent[template_id] = None
            self._of_functions.setdefault(message.function_id, {})[template_id] = None
            self._outbox.append(message)

    def _number(self, function_id: bytes) -> int:
        number = self._next_number()
        self._told[number] = function_id
        return number

    def refuse(self, about: int, code: str, text: str) -> bytes:
        """The head refuses a function or a template of it; the function, or empty: none of them."""
        function_id = self._told.get(about, b"")
        if function_id:
            self.refused[function_id] = (code, text)
        return function_id

    def refusal(self, template_id: bytes) -> tuple[str, str] | None:
        """Code and text with which the head has refused what a template names."""
        return self.refused.get(self.templates[template_id].function_id)

    def durable(self, function_ids: list[bytes], about: int) -> None:
        """The head keeps these functions, unless they were let go and sent again since."""
        for function_id in function_ids:
            export = self._exports.get(function_id)
            if export is not None and export.seq == about:
                self._exports[function_id] = None

    def resume(self) -> None:
        """All of it for a new session."""
        self._outbox += self.templates.values()
        self._outbox += [export for export in self._exports.values() if export is not None]

    # ---- what is needed --------------------------------------------------------------------

    def use(self, template_id: bytes) -> None:
        """Something is made of it, of which the head may have to be told again."""
        self._uses[template_id] += 1

    def unuse(self, template_id: bytes) -> None:
        """That has its outcome."""
        left = self._uses[template_id] - 1
        self._uses[template_id] = left
        if not left and self._unnamed:
            self._let_go(self.templates[template_id].function_id)

    def name(self, function_id: bytes) -> None:
        """A thing of the user's names the function, until ``unname``."""
        self._names[function_id] = self._names.get(function_id, 0) + 1

    def unname(self, function_id: bytes) -> None:
        """That thing is gone."""
        left = self._names.pop(function_id, 0) - 1
        if left > 0:
            self._names[function_id] = left
        else:
            self._unnamed[function_id] = None
            self._let_go(function_id)

    def _let_go(self, function_id: bytes) -> None:
        templates = self._of_functions.get(function_id, {})
        if function_id not in self._unnamed or any(self._uses[each] for each in templates):
            return
        del self._unnamed[function_id]
        self._of_functions.pop(function_id, None)
        export = self._exports.pop(function_id, None)
        if self.near.pop(function_id, None) is not None:
            self.let_go.append((function_id, [*templates]))
        if export is not None:
            self._told.pop(export.seq, None)
        self.refused.pop(function_id, None)
        for template_id in templates:
            self._told.pop(self.templates[template_id].seq, None)
            del self.templates[template_id], self._uses[template_id]
            self.urgent.pop(template_id, None)
        self._outbox.append(m.Forget(0, function_id))
