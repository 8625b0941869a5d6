"""What a driver tells its advice about what the program does.

A part of Driver. Nothing of this is on the way of a task: functions and arguments count where they
are large, everything else is looked at with each PING.
"""

from __future__ import annotations

import hashlib

from zray import limits
from zray.core.client.advice import SAME_ARGUMENT, Advice, Seen
from zray.core.client.client import Client
from zray.nodes.driver.printing import Printing
from zray.protocol import messages as m
from zray.runtime import serialization

SAMPLE_BYTES = 512


class Advising(Printing):
    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.advice = Advice(client.prints.warn)
        self._waits = 0  # calls that blocked

    def _before_blocking(self) -> None:
        self._waits += 1

    def _exported(self, function: m.Export) -> None:
        self.advice.function(function.name, len(function.blob))
        self._show_advice()

    def _passed_by_value(self, arguments: serialization.Arguments) -> None:
        parts = arguments.parts
        size = len(arguments.data) if parts is None else parts.size
        if size < limits.ADVICE_ARGUMENT_BYTES or not self.advice.wants(SAME_ARGUMENT):
            return
        pieces = [arguments.data] if parts is None else parts.pieces
        large = memoryview(max(pieces, key=len))
        middle = len(large) // 2
        sample = [
            bytes(large[at : at + SAMPLE_BYTES]) for at in (0, middle, len(large) - SAMPLE_BYTES)
        ]
        self.advice.argument(size, sample, lambda: hashlib.blake2b(large).digest())
        self._show_advice()

    def _advise(self) -> None:
        """Now and then. With the lock held."""
        client = self.client
        if self.advice.silent:
            return
        leased = client.leased_tasks
        in_flight = client.in_flight() + client.fresh()
        seen = Seen(self._waits, leased.finished(), in_flight, len(client.references.counts))
        self.advice.look(seen, leased.tiny)
        self._show_advice()

    def _show_advice(self) -> None:
        if self.client.prints:
            self._prints_came()
