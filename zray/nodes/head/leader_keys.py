"""The questions of an election in etcd's words: keys under one lease, and what is read of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from zray import limits
from zray.core.head.head_record import HeadRecord
from zray.core.head.leadership import (
    Answer,
    Campaign,
    Clear,
    Grant,
    Halt,
    Holder,
    Keep,
    Plain,
    Register,
    Request,
    Revoke,
    Sight,
)
from zray.nodes.head.predecessor import is_gone
from zray.store.etcd_layout import Damaged, Delete, Layout, Meta, after_prefix
from zray.store.etcd_race import Post, Race
from zray.store.etcd_wire import (
    NOT_FOUND,
    EtcdError,
    Pair,
    Unavailable,
    created,
    encoded,
    operation_of,
    pair,
    revision_of,
    unchanged,
)

_READS: Final = 5  # of each transaction, in the end


class LeaderKeys:
    """Asks what a ``Contender`` wants to know.

    ``leader`` and ``heads/ID`` are written once per lease, under it; ``halted`` stays for ever.

    Attributes:
        strays: what was last seen under ``heads/`` without a lease: no head's, and it would stay
            for ever, as a head that is not there, or in the place of one that is.
    """

    def __init__(self, race: Race, layout: Layout, me: HeadRecord) -> None:
        self._race = race
        self._layout = layout
        self._me = me
        self._reads = self._looks()
        self.strays: list[Pair] = []

    async def ask(self, request: Request, deadline_s: float) -> Answer:
        """
        Raises:
            EtcdError: refused. Unavailable: nobody has answered before ``deadline_s`` of the
                monotonic clock; it may be carried out, now or later.
        """

        async def doing(post: Post) -> Answer:
            return await self._ask(request, post)

        return await self._race.ask(doing, deadline_s)

    async def compact(self, revision: int, deadline_s: float) -> None:
        """Forget what was there before ``revision`` and is not any more.

        Raises:
            EtcdError: refused, as where somebody else has. Unavailable: nobody has answered.
        """

        async def doing(post: Post) -> None:
            await post("kv/compaction", {"revision": str(revision)})

        await self._race.ask(doing, deadline_s)

    async def sweep(self, deadline_s: float) -> None:
        """Delete the strays, if none of them was written meanwhile.

        Raises:
            EtcdError: refused. Unavailable: nobody has answered.
        """
        terms = [unchanged(stray.key, stray.changed) for stray in self.strays]
        deletes = [operation_of(Delete(stray.key)) for stray in self.strays]

        async def doing(post: Post) -> None:
            await post("kv/txn", {"compare": terms, "success": deletes})

        await self._race.ask(doing, deadline_s)

    async def _ask(self, request: Request, post: Post) -> Answer:
        try:
            match request:
                case Grant(lease, ttl_s):
                    return await self._grant(lease, ttl_s, post)
                case Revoke(lease):
                    await post("lease/revoke", {"ID": str(lease)})
                    return Plain.DONE
                case Keep(lease):
                    return await self._keep(lease, post)
                case Register(lease):
                    record = operation_of((self._own(), self._me.encode()), lease)
                    return await self._look(post, then=[record])
                case Campaign(lease):
                    record = operation_of((self._layout.leader, self._me.encode()), lease)
                    return await self._look(post, revision=0, then=[record])
                case Clear(revision):
                    key = operation_of(Delete(self._layout.leader))
                    return await self._look(post, revision=revision, then=[key])
                case Halt(revision, reason):
                    why = reason[: limits.TEXT_MAX].encode(errors="replace")
                    word = operation_of((self._layout.halted, why))
                    return await self._look(post, revision=revision, then=[word])
                case _:
                    return await self._look(post)
        except EtcdError as error:
            if error.code != NOT_FOUND or "lease not found" not in str(error):
                raise
            return Plain.DONE if isinstance(request, Revoke) else Plain.LEASE_GONE

    async def _grant(self, lease: int, ttl_s: int, post: Post) -> Answer:
        try:
            await post("lease/grant", {"TTL": str(ttl_s), "ID": str(lease)})
        except EtcdError as error:
            if "lease already exists" not in str(error):  # by a copy of this
                raise
        return Plain.DONE

    async def _keep(self, lease: int, post: Post) -> Answer:
        """Renew and look at once, since both may take long where etcd's disks are slow.

        A member that has lost etcd's lead, and does not know yet, renews in vain. Reading, it hears
        of its successor; so both have to be of the same term of raft. (A new leader of etcd gives
        each lease its whole time anew, which makes up for what such a member still believes.)
        """
        renewing = asyncio.ensure_future(post("lease/keepalive", {"ID": str(lease)}))
        looking = asyncio.ensure_future(post("kv/txn", {"success": self._reads}))
        try:
            kept: dict[str, Any] = (await renewing).get("result", {})
            if int(kept.get("TTL", "0")) <= 0:
                return Plain.LEASE_GONE
            found = await looking
        finally:
            for one in (renewing, looking):
                one.cancel()
            await asyncio.gather(renewing, looking, return_exceptions=True)
        if _term(kept) != _term(found):
            raise Unavailable("etcd's leader has changed meanwhile")
        return self._sight(found)

    async def _look(
        self, post: Post, *, revision: int | None = None, then: Sequence[dict[str, Any]] = ()
    ) -> Sight:
        """Do ``then`` if the leader's key was created in ``revision``; read in any case."""
        terms = [created(self._layout.leader, revision)] if revision is not None else []
        fields = {"compare": terms, "success": [*then, *self._reads], "failure": self._reads}
        return self._sight(await post("kv/txn", fields))

    # ---- what is read ----------------------------------------------------------------------

    def _own(self) -> bytes:
        return self._layout.head(self._me.head_id)

    def _looks(self) -> list[dict[str, Any]]:
        layout = self._layout
        heads = {
            "key": encoded(layout.heads),
            "range_end": encoded(after_prefix(layout.heads)),
            "limit": str(limits.HEADS_MAX),
            "sort_order": "ASCEND",
            "sort_target": "CREATE",
        }
        single = (layout.leader, self._own(), layout.halted, layout.meta)
        reads = [*({"key": encoded(key)} for key in single), heads]
        return [{"request_range": fields} for fields in reads]

    def _sight(self, found: dict[str, Any]) -> Sight:
        leader, own, halted, meta, heads = (
            [pair(one) for one in response.get("response_range", {}).get("kvs", ())]
            for response in found.get("responses", ())[-_READS:]
        )
        self.strays = [one for one in heads if not one.lease]
        records = (HeadRecord.decode(one.value) for one in heads if one.lease)
        about = _meta(meta)
        return Sight(
            revision_of(found),
            self._holder(leader[0]) if leader else None,
            own[0].lease if own else 0,
            tuple(record for record in records if record is not None),
            halted[0].changed if halted else 0,
            halted[0].value.decode(errors="replace") if halted else "",
            about.cluster_id or b"",
            about.skipped,
        )

    def _holder(self, leader: Pair) -> Holder:
        record = HeadRecord.decode(leader.value)
        gone = record is not None and is_gone(record, self._me)
        return Holder(record, leader.created, leader.lease, gone)


def _term(found: dict[str, Any]) -> str:
    """Of raft, as whoever answered knew it."""
    return str(found.get("header", {}).get("raft_term", ""))


def _meta(found: list[Pair]) -> Meta:
    """Whoever opens the store says what is wrong with it."""
    try:
        return Meta.decode(found[0].value) if found else Meta(0)
    except Damaged:
        return Meta(0)
