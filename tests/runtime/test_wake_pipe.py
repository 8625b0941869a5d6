from __future__ import annotations

import os
import select

from zray.runtime.wake_pipe import WakePipe


def readable(pipe: WakePipe) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


def test_a_wake_ends_the_next_poll_too_until_it_is_drained() -> None:
    pipe = WakePipe()
    assert not readable(pipe)
    pipe.wake()
    pipe.wake()
    assert readable(pipe)
    pipe.drain()
    assert not readable(pipe)
    pipe.drain()  # what was not woken can be drained
    pipe.close()


def test_waking_one_who_does_not_drain_never_blocks_nor_fails() -> None:
    pipe = WakePipe()
    for _ in range(100_000):  # more bytes than a pipe holds
        pipe.wake()
    assert readable(pipe)
    pipe.close()
    pipe.wake()


def test_a_child_does_not_inherit_it() -> None:
    pipe = WakePipe()
    assert not os.get_inheritable(pipe.fileno())
    pipe.close()
