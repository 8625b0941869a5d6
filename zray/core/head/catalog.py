"""The GCS's tables of functions and key-value pairs: durable before anyone sees them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable
from itertools import islice, takewhile

import msgspec

from zray.core.head.journal import Persist
from zray.core.head.members import Member
from zray.core.machine import Outbox
from zray.protocol.messages import Export, Kv, KvReply


class FunctionRow(msgspec.Struct, array_like=True, frozen=True):
    """A function as it is stored; ``contained``: ids of the references in its closure."""

    name: str
    blob: bytes
    contained: list[bytes]


class Catalog:
    """What is durable of functions and key-value pairs. ``rows``: of the store."""

    def __init__(
        self, rows: dict[str, dict[bytes, bytes]], persist: Persist, outbox: Outbox[bytes]
    ) -> None:
        self._persist = persist
        self._outbox = outbox
        self._exporting: dict[bytes, list[Callable[[], None]]] = {}
        self.functions: dict[bytes, FunctionRow] = {
            function_id: msgspec.msgpack.decode(value, type=FunctionRow)
            for function_id, value in rows.get("functions", {}).items()
        }
        self.kv: dict[bytes, bytes] = dict(rows.get("kv", {}))
        self._keys = sorted(self.kv)
        self._storing: Counter[bytes] = Counter()  # keys whose values are not durable yet

    def export(self, message: Export, durable: Callable[[], None]) -> None:
        """Store a function; ``durable`` is called once it is (at once if it was)."""
        function_id = message.function_id
        if function_id in self.functions:
            durable()
            return
        waiting = self._exporting.get(function_id)
        if waiting is not None:
            waiting.append(durable)
            return
        self._exporting[function_id] = [durable]
        row = FunctionRow(message.name, message.blob, list(message.contained))

        def then(_now: float) -> None:
            self.functions[function_id] = row
            for call in self._exporting.pop(function_id):
                call()

        self._persist([("functions", function_id, msgspec.msgpack.encode(row))], then)

    def is_being_stored(self, function_id: bytes) -> bool:
        """Whether the function will be durable soon."""
        return function_id in self._exporting

    def forget(self, function_id: bytes) -> list[bytes]:
        """Nobody needs the function any more; returns the objects that it refers to."""
        row = self.functions.pop(function_id, None)
        if row is None:
            return []
        self._persist([("functions", function_id, None)], lambda _now: None)
        return row.contained

    def on_kv(self, sender: Member, message: Kv, now: float) -> None:
        """One operation on the key-value table; its sender gets the reply when it is durable."""
        key, about = message.key, message.seq

        def answer(reply: KvReply) -> None:
            self._outbox.send(sender.process_id, reply)

        if message.op == "get":
            value = self.kv.get(key)
            answer(KvReply(0, about, value is not None, value or b""))
        elif message.op == "keys":
            answer(KvReply(0, about, True, b"", self._keys_from(key)))
        elif message.op == "add" and (key in self.kv or key in self._storing):
            self._persist([], lambda _now: answer(KvReply(0, about, True)))  # after what stores it
        elif message.op in ("put", "add", "delete"):
            self._change(key, None if message.op == "delete" else message.value, about, answer)
        else:
            answer(KvReply(0, about, False))

    def _change(
        self, key: bytes, stored: bytes | None, about: int, answer: Callable[[KvReply], None]
    ) -> None:
        """The key has this value from the moment that it is durable; None: it has none."""

        def then(_now: float) -> None:
            found = key in self.kv
            if stored is None:
                if self.kv.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            else:
                self._storing[key] -= 1
                if not self._storing[key]:
                    del self._storing[key]
                if not found:
                    insort(self._keys, key)
                self.kv[key] = stored
            answer(KvReply(0, about, found))

        if stored is not None:
            self._storing[key] += 1
        self._persist([("kv", key, stored)], then)

    def _keys_from(self, prefix: bytes) -> list[bytes]:
        """The keys that begin so, in order."""
        first = bisect_left(self._keys, prefix)
        return list(takewhile(lambda key: key.startswith(prefix), islice(self._keys, first, None)))
