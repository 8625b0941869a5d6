"""What a head writes of itself into a shared store: who it is, and which process of a machine."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from zray.protocol.head_messages import Addresses, HeadInfo
from zray.protocol.parts import Count, Name

_HeadId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
_WallTime = Annotated[float, Meta(ge=0, lt=2**38)]  # has a date


class HeadRecord(Struct, frozen=True):
    """As JSON under ``heads/<head_id>`` and ``leader``, so that people can read it there.

    ``boot`` and ``namespace`` say on which machine, since it was started, and in which set of
    process ids ``pid`` is meant; ``born`` tells it from a later process with the same id. Empty:
    unknown. ``minor``: of the protocol that it speaks.
    """

    head_id: _HeadId
    addresses: Addresses
    host: Name
    pid: Count
    zray: Name
    since_s: _WallTime
    boot: Name = ""
    namespace: Name = ""
    born: Name = ""
    minor: Count = 0

    @classmethod
    def of(cls, head: HeadInfo, boot: str = "", namespace: str = "", born: str = "") -> HeadRecord:
        fields = (head.addresses, head.host, head.pid, head.zray, head.since_s)
        return cls(head.head_id.hex(), *fields, boot, namespace, born, head.minor)

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, content: bytes) -> HeadRecord | None:
        """None where it is not one."""
        try:
            return msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def head(self, *, leads: bool) -> HeadInfo:
        """Its account for peers."""
        fields = (self.addresses, self.host, self.pid, self.zray, self.since_s)
        return HeadInfo(bytes.fromhex(self.head_id), *fields, leads, self.minor)

    def shares_machine_with(self, other: HeadRecord) -> bool:
        """Whether the ids of its processes mean the same to both."""
        own, others = self._machine(), other._machine()
        return own == others and all(own)

    def in_words(self) -> str:
        return f"pid {self.pid} on host {self.host}"

    def _machine(self) -> tuple[str, str, str]:
        return self.host, self.boot, self.namespace
