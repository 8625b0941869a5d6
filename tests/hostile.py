"""What a hostile or broken peer does: well-formed nonsense, garbage, a disk that fills up."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import types
import typing
from pathlib import Path
from typing import Annotated, Any

import msgspec

from zray.protocol import messages as m

BATCHES = 40
TEXTS = ("", "x", "put", "get", "delete", "keys", "CPU", "python")
GARBAGE = b"\xc1\xff\x00\x93" * 300


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
            int: chance.choice((0, 1, 2, 3, -1, 1 << 62)),
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


def abstract_sockets(pid: int) -> list[bytes]:
    """The names at which a process listens."""
    mine = {
        os.readlink(f"/proc/{pid}/fd/{fd}").removeprefix("socket:[").rstrip("]")
        for fd in os.listdir(f"/proc/{pid}/fd")
        if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
    }
    found = []
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) == 8 and fields[6] in mine and fields[7].startswith("@zray-"):
            found.append(fields[7].replace("@", "\0", 1).encode())
    return list(dict.fromkeys(found))


def knock(name: bytes) -> None:
    """One garbage packet, or stream, from a process of the same user."""
    kind = socket.SOCK_SEQPACKET if name.startswith(b"\0zray-store-") else socket.SOCK_STREAM
    with socket.socket(socket.AF_UNIX, kind) as garbler:
        garbler.settimeout(5)
        garbler.connect(name)
        garbler.sendall(GARBAGE)
        with contextlib.suppress(ConnectionError):
            assert garbler.recv(1) == b""  # it is shown the door


def fill(directory: Path) -> Path:
    filler = directory / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass
    return filler
