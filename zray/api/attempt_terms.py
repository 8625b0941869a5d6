"""What an attempt that is replayed is held to, as its worker did: its time, what it may return."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from zray.core import failures
from zray.errors import TaskTimeoutError
from zray.protocol.failed_run import FailedRun
from zray.runtime import returns


@contextlib.contextmanager
def in_time(run: FailedRun) -> Iterator[None]:
    """What runs in the main thread is interrupted where the task was to have ended (``timeout=``).

    Raises:
        TaskTimeoutError: it was, with the traceback from where it was then.
    """
    limit_s = run.template.timeout_s if run.actor is None else 0.0
    if not limit_s or threading.current_thread() is not threading.main_thread():
        yield
        return
    over: list[KeyboardInterrupt] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        over.append(KeyboardInterrupt())
        raise over[0]

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    except KeyboardInterrupt as error:
        if not over:
            raise
        text = failures.read(failures.of_timeout(run.name, limit_s, "was interrupted")).message
        raise TaskTimeoutError(text).with_traceback(_interrupted(error.__traceback__)) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _interrupted(trace: TracebackType | None) -> TracebackType | None:
    """Where it was: the last entry, which is that of the handler, is left out."""
    last = trace
    while last is not None and last.tb_next is not None:
        if last.tb_next.tb_next is None:
            last.tb_next = None
        else:
            last = last.tb_next
    return trace


def check_returned(run: FailedRun, value: Any) -> None:
    """See whether that could have been returned: ``value`` is what it came to, of a generator a
    list.

    Raises:
        ValueError: it is another number of values than was declared.
        SerializationError: it, or a part of it, cannot be pickled.
    """
    call, template = run.call, run.template
    if call is None and run.actor is not None:
        return  # an actor stays where it is
    count = call.num_returns if call is not None else template.num_returns
    yields = call.yields if call is not None else template.yields
    values = [value]
    if yields or (count == 1 and isinstance(value, Yielded)):
        values = [*value] if yields else [returns.only(iter(value), run.name)]
    elif count != 1:
        values = returns.several(value, count, run.name) if count else []
    what = f"the result of {run.name}"
    for one in values:
        returns.encoded(one, what, portable=template.by_name)


class Yielded(list[Any]):
    """What a generator has yielded."""
