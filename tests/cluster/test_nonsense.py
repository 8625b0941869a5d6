"""Well-formed messages that make no sense: a peer of any kind can send them, the head stays up."""

from __future__ import annotations

import os
import random
import types
import typing
from typing import Annotated, Any

import msgspec

import zray
from zray.core.traffic import CLIENT_VERBS, NODE_VERBS
from zray.protocol import messages as m

SESSIONS = 40
BATCHES = 40
TEXTS = ("", "x", "put", "get", "delete", "keys", "CPU", "python")


class Nonsense:
    """Values of any field type, from one seed; ids are often the same ones again."""

    def __init__(self, seed: int, ids: list[bytes]) -> None:
        self.chance = random.Random(seed)
        self.ids = [*ids, *(self.chance.randbytes(16) for _ in range(4))]

    def message(self, kind: type[m.Message]) -> m.Message:
        made: m.Message = self._value(kind)
        return made

    def _value(self, kind: Any) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is Annotated:
            return self._bounded(arguments[0], arguments[1])
        if origin is list:
            return [self._value(arguments[0]) for _ in range(self.chance.choice((0, 1, 1, 3)))]
        if origin is tuple:
            return tuple(map(self._value, arguments))
        if origin in (typing.Union, types.UnionType):
            return self._value(self.chance.choice(arguments))
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            hints = typing.get_type_hints(kind, include_extras=True)
            return kind(**{name: self._value(hints[name]) for name in kind.__struct_fields__})
        return self._plain(kind)

    def _plain(self, kind: Any) -> Any:
        chance = self.chance
        objects = b"".join(chance.choice(self.ids) + bytes(4) for _ in range(2))
        return {
            bool: chance.random() < 0.5,
            int: chance.randrange(5),
            float: chance.choice((0.0, -1.0, 0.01, 1e300, float("nan"), float("inf"))),
            str: chance.choice(TEXTS),
            bytes: chance.choice((b"", b"abc", objects, objects[:33])),
            type(None): None,
        }[kind]

    def _bounded(self, kind: Any, meta: msgspec.Meta) -> Any:
        if typing.get_origin(kind) is list:
            return self._value(kind)
        if kind is bytes and (meta.min_length is not None or meta.max_length == 16):
            chosen = self.chance.choice(self.ids)
            if meta.min_length is None:
                return self.chance.choice((b"", chosen))
            return chosen + bytes(meta.min_length - 16)
        if kind is int:
            most = meta.le if meta.le is not None else 2**53 - 1
            return self.chance.choice((meta.ge, 1, 2, 3, most))
        return self._plain(kind)


def test_the_head_survives_nonsense_from_drivers_and_nodes(connected: Any) -> None:
    @zray.task
    def double(number: int) -> int:
        return 2 * number

    ref = double.remote(1)
    assert zray.get(ref, timeout=10) == 2
    seed = random.randrange(1 << 30)
    print("seed", seed)
    nonsense = Nonsense(seed, [bytes(16), ref.id[:16]])
    for place in range(SESSIONS):
        peer = connected.peer(hello=False)
        try:
            role = (m.ROLE_DRIVER, m.ROLE_NODE)[place % 2]
            hello = peer.hello(role)
            if role == m.ROLE_NODE:
                info = m.NodeInfo("liar", "127.0.0.1", os.getpid(), [("CPU", 10_000)], [], "")
                hello = msgspec.structs.replace(hello, node=info)
            peer.send(hello)
            peer.receive(m.Welcome)
            talk(peer, nonsense, NODE_VERBS if role == m.ROLE_NODE else CLIENT_VERBS)
            peer.send(m.Goodbye(0, "enough"))
        finally:
            peer.close()
    assert connected.head.process.poll() is None
    assert zray.get(ref, timeout=10) == 2
    assert zray.get([double.remote(number) for number in range(10)], timeout=30)


def talk(peer: Any, nonsense: Nonsense, verbs: frozenset[type[m.Message]]) -> None:
    kinds = sorted(verbs - {m.Goodbye}, key=lambda kind: kind.__name__)
    nonsense.ids[0] = peer.process_id
    for _ in range(BATCHES):
        chosen = nonsense.chance.choices(kinds, k=nonsense.chance.randint(1, 6))
        peer.send(*map(nonsense.message, chosen))
        if m.Announce in verbs and nonsense.chance.random() < 0.2:
            peer.send(m.Announce(0, [], [], []), m.Credit(0, 1000))
    peer.send(m.Ping(0, 0.25))
    while peer.receive(m.Pong, 20).sent_s != 0.25:
        pass
