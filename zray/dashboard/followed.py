"""Logs that are followed, as server-sent events: what comes next of one, until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from zray.dashboard.events import server_event
from zray.dashboard.problems import Problem, problem_of
from zray.dashboard.service import Service
from zray.errors import BusyError, HeadConnectionError
from zray.nodes.driver.operator import Operator

FOLLOW_S = 0.5  # how often it is looked whether there is more
AWAY_S = 2.0  # and after head or node did not answer


class Reading(Protocol):
    """A log that somebody follows. ``last``: the event with which it ends, once it has."""

    last: bytes

    def next(self, operator: Operator) -> list[bytes]:
        """The events that come next; none: nothing new. In a thread, with whatever session is
        free."""


async def followed(service: Service, reading: Reading, first: bytes) -> AsyncGenerator[bytes, None]:
    """``first``, then what the reading has, as it comes. Empty now and then, for who has left."""
    yield first
    while True:
        try:
            events = await service.ask(reading.next)
        except (HeadConnectionError, BusyError, Problem) as error:
            yield server_event("problem", problem_of(error).described())
            await asyncio.sleep(AWAY_S)
            continue
        except Exception as error:
            yield server_event("end", {"text": problem_of(error).message})
            return
        for event in events:
            yield event
        if not events:
            yield reading.last
            if reading.last:
                return
            await asyncio.sleep(FOLLOW_S)
