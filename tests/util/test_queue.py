"""What ``zray.util.queue`` does beyond the contracts of Ray's (tests/conformance)."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.conftest import eventually
from zray.util.queue import Queue

pytestmark = pytest.mark.usefixtures("cluster")


def test_who_was_cancelled_takes_nothing() -> None:
    queue = Queue()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get_async(), 0.3)

    asyncio.run(leave())
    queue.put("kept")
    assert queue.get(timeout=10) == "kept"


def test_what_was_cancelled_is_not_put() -> None:
    async def leave(queue: Queue) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.put_async(2), 0.3)
        await asyncio.sleep(0.1)  # the queue hears of that a moment later

    def left() -> bool:
        queue = Queue(maxsize=1)
        queue.put(1)
        asyncio.run(leave(queue))
        assert queue.get(timeout=10) == 1
        return queue.empty()

    eventually(left)


def test_thousands_who_wait_let_the_item_come() -> None:
    queue = Queue()

    async def wait() -> None:
        tasks = [asyncio.create_task(queue.get_async()) for _ in range(2000)]
        await asyncio.sleep(0)
        await asyncio.wait_for(queue.put_async(1), 20)
        done, _ = await asyncio.wait(tasks, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result() for one in done] == [1]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(wait())
    queue.put(2)  # perhaps before all have heard that nobody waits there any more
    assert queue.get(timeout=20) == 2
