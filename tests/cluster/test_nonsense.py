"""Well-formed messages that make no sense: a peer of any kind can send them, the head stays up."""

from __future__ import annotations

import os
import random
from typing import Any

import msgspec

import zray
from tests.hostile import Nonsense, talk
from zray.core.head.roles import CLIENT_VERBS, NODE_VERBS
from zray.protocol import messages as m

SESSIONS = 40


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
