"""Heads that only answer HELLO and STATUS, as a test wishes: one that leads, stands by, or is mute.

Each is a thread with a port of its own; all of a test have one cluster key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from zray import limits
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.keys import ClusterKey
from zray.runtime.zap import ZapServer

CLUSTER = bytes(16)
STEP_MS = 5

Answer = Callable[[m.Message], tuple[int, m.Message] | None]


def info_of(key: ClusterKey, *addresses: str) -> ConnectionInfo:
    client = key.client()
    keys = (key.server.public, client.public, client.secret)
    return ConnectionInfo(key.cluster_id.hex(), [*addresses], *keys, 1, time.time())


class FakeHead:
    """``answer`` tells epoch and message for what has come; None: nothing, as a head that hangs.

    ``asked``: what has come, in order.
    """

    def __init__(self, key: ClusterKey, number: int) -> None:
        self.head_id = bytes([number]) * 16
        self.asked: list[m.Message] = []
        self.answer: Answer = lambda message: None
        self._context = sockets.context()
        self._zap = ZapServer(self._context, {key.client().public: "admin"}, lambda text: None)
        self._router = sockets.router(self._context, key.server.secret)
        self.port = sockets.bind(self._router, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.port}"
        self._ends = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def info(self, *, leads: bool = False) -> m.HeadInfo:
        return m.HeadInfo(self.head_id, [self.address], "here", 7, "1.0", time.time() - 60, leads)

    # ---- what it is ------------------------------------------------------------------------

    def stands_by(self, epoch: int, *heads: m.HeadInfo, text: str = "it waits") -> None:
        self.answer = lambda message: (epoch, m.NotLeader(0, epoch, [*heads], text))

    def leads(self, epoch: int, *others: m.HeadInfo, questions: Answer | None = None) -> None:
        heads = [self.info(leads=True), *others] if others else []

        def answer(message: m.Message) -> tuple[int, m.Message] | None:
            if isinstance(message, m.Hello):
                sizes = (m.PROTOCOL_VERSION, CLUSTER, limits.FRAME_BYTES_MAX, limits.PING_S)
                return epoch, m.Welcome(0, *sizes, [], self.head_id, heads, minor=m.PROTOCOL_MINOR)
            return questions(message) if questions is not None else None

        self.answer = answer

    def hangs(self) -> None:
        self.answer = lambda message: None

    # ---- its thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ends:
            self._zap.handle()
            if not self._router.poll(STEP_MS):
                continue
            frames: list[Any] = self._router.recv_multipart(copy=False)
            for message in codec.decode(frames[-1].buffer).messages:
                self.asked.append(message)
                found = self.answer(message)
                if found is not None:
                    for payload in codec.encode(found[0], [found[1]]):
                        self._router.send_multipart([frames[0].bytes, m.KIND, payload])

    def close(self) -> None:
        """As a head that ends: its connections do, too. Once more does nothing."""
        self._ends = True
        self._thread.join()
        self._context.destroy(0)
