"""What the parts of a worker may use of it; `worker` has them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import Entry
from zray.core.worker.task_inbox import TaskInbox
from zray.nodes.worker.poller import Poller
from zray.nodes.worker.task_teller import TaskTeller
from zray.protocol import messages as m
from zray.runtime.buffers import Parts
from zray.runtime.linux.process_title import ProcessTitle
from zray.runtime.quiet_lock import QuietLock
from zray.runtime.references import ObjectRef

if TYPE_CHECKING:
    import asyncio


class Host(Protocol):
    """With the lock held, but for ``borrow``, ``get``, ``put``, ``put_error``, ``kept``,
    ``unkeep``, ``end_if_forked``, ``complete_due`` and ``read_in_loop``."""

    client: Client
    task_inbox: TaskInbox
    poller: Poller
    teller: TaskTeller  # of what has run
    tellings: int  # how often the raylet was told something
    title: ProcessTitle

    @property
    def worker_id(self) -> bytes: ...

    @property
    def lock(self) -> QuietLock: ...

    def lease_holds(self) -> bool: ...

    # ---- sending and waiting ---------------------------------------------------------------

    def tell_raylet(self, messages: list[m.Message]) -> None: ...

    def tell_items(self, items: m.Items) -> None: ...

    def send_outbox(self) -> None: ...

    def flush(self) -> None: ...

    def flush_if_due(self) -> None: ...

    def attend_writes(self) -> None: ...

    def hear_control(self) -> None: ...

    def wait_for(self, waiter: Waiter) -> None: ...

    def wait_some(self, waiter: Waiter, patience_s: float | None) -> None: ...

    def lead_or_follow(self, timeout_s: float) -> None: ...

    def wake(self) -> None: ...

    def look_on(self) -> None: ...

    def read(self) -> None: ...

    def read_aside(self) -> None: ...

    def read_in_loop(
        self,
        loop: asyncio.AbstractEventLoop,
        look: Callable[[], object],
        cancel: Callable[[Entry], object],
    ) -> None: ...

    def complete_due(self) -> None: ...

    def end_if_forked(self) -> None: ...

    # ---- values and references -------------------------------------------------------------

    def get(self, wanted: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]: ...

    def borrow(self, object_id: bytes) -> ObjectRef[Any]: ...

    def put(self, value: Any, oid: bytes = b"") -> ObjectRef[Any]: ...

    def put_error(self, data: bytes) -> ObjectRef[Any]: ...

    def kept(self, parts: Parts, oid: bytes) -> m.Outcome: ...

    def unkeep(self, outcomes: list[m.Outcome]) -> None: ...

    def here_again(self, ids: list[bytes]) -> list[m.Outcome | None]: ...

    def offered(self, oid: bytes) -> m.Outcome | None: ...

    def forget_offered(self) -> None: ...

    def collect_dropped(self) -> None: ...

    def keep_drops(self) -> None: ...
