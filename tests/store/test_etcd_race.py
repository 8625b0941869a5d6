"""Questions that several members are asked: who is silent, refuses or is gone costs little time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.etcd_cluster import Etcd, encoded, free_ports
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_race import Post, Race
from zray.store.etcd_wire import EtcdError, NoSpace, Unavailable

pytestmark = pytest.mark.system

READ = {"key": encoded(b"x")}


@pytest.fixture
def silent() -> Iterator[str]:
    """A member that accepts connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()


@pytest.fixture
def well(etcd_of_1: Etcd) -> str:
    return f"http://127.0.0.1:{etcd_of_1.ports[0]}"


def gone() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}"


async def read(post: Post) -> str:
    found = await post("kv/range", READ)
    return str(found["header"]["revision"])


def raced(
    endpoints: list[str],
    doing: Callable[[Post], Awaitable[Any]] = read,
    *,
    times: int = 1,
    patience_s: float = 10.0,
) -> list[float]:
    """How long each of so many questions took, one after the other."""

    async def ask() -> list[float]:
        race, took = Race(EtcdAddress(tuple(endpoints)), verify=True), []
        try:
            for _ in range(times):
                began = time.monotonic()
                await race.ask(doing, began + patience_s)
                took.append(time.monotonic() - began)
        finally:
            await race.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "no copy goes on"
        return took

    return asyncio.run(ask())


def test_who_is_silent_is_waited_for_once(silent: str, well: str) -> None:
    first, second = raced([silent, well], times=2)
    assert 0.25 < first < 2.0
    assert second < 0.25, "who has answered last is asked first"


def test_who_refuses_a_connection_costs_nothing(well: str) -> None:
    assert raced([gone(), gone(), well])[0] < 0.5


def test_one_alone_is_asked_again_while_it_hangs(well: str) -> None:
    """As a member that has passed the question on to a leader that sleeps."""
    asked = 0

    async def hangs_once(post: Post) -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(60.0)
        return await read(post)

    assert raced([well], hangs_once)[0] < 2.0
    assert asked >= 2


def test_a_slow_answer_counts_though_others_were_asked_since(well: str) -> None:
    async def slow(post: Post) -> str:
        await asyncio.sleep(1.0)
        return await read(post)

    assert 0.9 < raced([well], slow)[0] < 2.0


def test_where_nobody_answers_it_is_over_in_time_and_few_have_asked(silent: str) -> None:
    asked = 0

    async def counted(post: Post) -> str:
        nonlocal asked
        asked += 1
        return await read(post)

    began = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        raced([silent], counted, patience_s=4.0)
    assert 3.9 < time.monotonic() - began < 6.0
    assert 3 <= asked <= 8
    with pytest.raises(Unavailable, match="cannot be asked"):
        raced([gone()], counted, patience_s=1.0)
    assert asked < 30, "it pauses between"


@pytest.mark.parametrize("refusal", [EtcdError("no"), NoSpace("full")])
def test_a_refusal_is_not_asked_for_twice(silent: str, well: str, refusal: EtcdError) -> None:
    asked = 0

    async def refused(post: Post) -> None:
        nonlocal asked
        asked += 1
        await read(post)
        raise refusal

    with pytest.raises(type(refusal)):
        raced([well, silent], refused)
    assert asked == 1


def test_a_watch_tells_that_it_is_set_up_and_of_each_change(etcd_of_1: Etcd, well: str) -> None:
    async def watch() -> None:
        race = Race(EtcdAddress((well,)), verify=True)
        seen = 0
        try:
            async for _ in race.changes(b"watched", b"watched0", 1.0):
                seen += 1
                if seen < 4:
                    etcd_of_1.put(b"watched/%d" % seen, b"v")
                    etcd_of_1.put(b"other", b"v")
            assert seen == 4, "then a second passes without a word"
        finally:
            await race.close()

    asyncio.run(watch())


def test_a_member_that_is_gone_cannot_be_watched() -> None:
    async def watch() -> None:
        race = Race(EtcdAddress((gone(),)), verify=True)
        try:
            async for _ in race.changes(b"a", b"b", 1.0):
                raise AssertionError
        finally:
            await race.close()

    with pytest.raises(Unavailable, match="cannot be watched"):
        asyncio.run(watch())
