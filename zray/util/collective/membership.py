"""How the members of a group find each other, and their connections.

Each leaves a card in the cluster's key-value table until all have met: who it is, and where. Of two
members the one of the higher rank connects to the other, when either first needs it.
"""

from __future__ import annotations

import secrets
import time

import msgspec

from zray.api import cluster
from zray.api.driver_account import own_machine
from zray.errors import CollectiveError
from zray.util import kv
from zray.util.channels import Channel, LocalDoor, PeerGoneError
from zray.util.collective.group import Group
from zray.util.far_channels import FarDoor

LOOK_S = 0.02  # between two looks whether somebody has come
THERE_S = 0.5  # between two looks whether somebody is still there
CARD_BYTES = 1024


class Card(msgspec.Struct, array_like=True, frozen=True):
    """A member. ``public``: its key, for those on other machines."""

    member_id: bytes
    rank: int
    world_size: int
    machine: str
    host: str
    public: bytes


class Membership:
    """This process as a member. ``prefix``: of the keys of this group's cards."""

    def __init__(self, prefix: bytes, name: str, rank: int, world_size: int) -> None:
        self._prefix = prefix
        self._name = name
        self._rank = rank
        self._channels: dict[int, Channel] = {}
        self._cards: dict[int, Card] = {}  # of all, once they have met
        self._meet_by = 0.0
        member_id = secrets.token_bytes(16)
        self._door = LocalDoor(member_id)
        host = cluster.own_address()
        self._far = FarDoor(prefix, member_id, rank, host)
        self._card = Card(member_id, rank, world_size, own_machine(), host, self._far.public)
        self.group = Group(name, rank, world_size, self._reach, self.close)

    def meet(self, timeout_s: float) -> None:
        """Wait until all have come.

        Raises:
            CollectiveError: some have not in time; or have not the same size of the group.
        """
        self._meet_by = time.monotonic() + timeout_s
        raw = msgspec.msgpack.encode(self._card)
        try:
            kv.put(self._key(self._rank), raw)
            try:
                met = self.group.meet(len(raw).to_bytes(2) + raw.ljust(CARD_BYTES, b"\0"))
            finally:
                kv.delete(self._key(self._rank))
        except BaseException:
            self.close()
            raise
        for record in met:
            card = msgspec.msgpack.decode(record[2 : 2 + int.from_bytes(record[:2])], type=Card)
            self._cards[card.rank] = card

    def close(self) -> None:
        """Hang up."""
        self._door.close()
        self._far.close()
        for channel in self._channels.values():
            channel.close()

    def _key(self, rank: int) -> bytes:
        return self._prefix + str(rank).encode()

    def _look_up(self, rank: int) -> Card | None:
        """A member's card. Before they have met it may be one of an earlier group."""
        if self._cards:
            return self._cards[rank]
        raw = kv.get(self._key(rank))
        card = msgspec.msgpack.decode(raw, type=Card) if raw is not None else None
        if card is not None and card.world_size != self._card.world_size:
            raise CollectiveError(
                f"rank {rank} has made the group {self._name!r} with {card.world_size} members, "
                f"and this one, rank {self._rank}, with {self._card.world_size}"
            )
        return card

    def _reach(self, rank: int, deadline: float) -> Channel:
        """The connection to a member.

        Raises:
            PeerGoneError: it has ended. CollectiveError, TimeoutError: it has not come in time.
        """
        channel = self._channels.get(rank)
        if channel is not None:
            return channel
        if not self._cards:
            deadline = self._meet_by
        while rank not in self._channels:
            if self._far.public:
                for caller, far in self._far.admit():
                    self._admit(caller, far)
            card = self._look_up(rank)
            if rank in self._channels:
                break
            if card is not None:
                self._try(card)
            elif rank > self._rank:
                self._let_in(LOOK_S)
            else:
                time.sleep(LOOK_S)
            if rank not in self._channels and time.monotonic() >= deadline:
                self._missing(rank)
        return self._channels[rank]

    def _missing(self, rank: int) -> None:
        if self._cards:
            raise TimeoutError
        raise CollectiveError(
            f"rank {rank} of the group {self._name!r} has not come in time: it has not called "
            "init_collective_group, or its actor waits for resources (see `zray status`)"
        )

    def _try(self, card: Card) -> None:
        """Connect, or let connect; perhaps in vain so far."""
        far = not card.machine or card.machine != self._card.machine
        connects = card.rank < self._rank
        channel: Channel | None = None
        if far:
            if not (card.public and self._card.public):
                raise CollectiveError(
                    f"rank {card.rank} of the group {self._name!r} runs on another machine, and "
                    "one of the two nodes is reached from its own machine only; start it with "
                    "--host and an address that the other reaches"
                )
            if connects:
                channel = self._far.connect(card.member_id, card.public, card.host)
        elif connects:
            channel = self._door.connect(card.member_id, self._rank)
            if channel is None and self._cards:
                raise PeerGoneError
        elif self._cards:
            if not self._let_in(THERE_S) and not self._door.is_there(card.member_id):
                raise PeerGoneError
        else:
            self._let_in(LOOK_S)
        if channel is not None:
            self._channels[card.rank] = channel
        elif far or connects:
            time.sleep(LOOK_S)

    def _let_in(self, wait_s: float) -> bool:
        """Whether somebody has connected."""
        found = self._door.accept(wait_s)
        if found is None:
            return False
        rank, _, channel = found
        self._admit(rank, channel)
        return True

    def _admit(self, rank: int, channel: Channel) -> None:
        if rank in self._channels or not self._rank < rank < self._card.world_size:
            channel.close()
        else:
            self._channels[rank] = channel
