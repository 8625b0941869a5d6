"""The process's life: from the socket that it inherits to its end, when nobody looks any more."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import uvicorn

from zray.dashboard import connection, guard, http_limits
from zray.dashboard.app import application
from zray.dashboard.sampler import Sampler
from zray.dashboard.service import Service
from zray.runtime.connection import ConnectionInfo
from zray.runtime.linux.zygote import end_with_parent, set_process_name
from zray.runtime.log import Log, with_traceback
from zray.runtime.loop import raise_descriptor_limit

PROCESS_NAME = "zray-dashboard"
LAST_WORDS_S = 0.5  # for viewers to hear of the end
LOOK_S = 0.1  # how often it is looked whether anybody is there, of the idle time


class Server:
    """``start``: as the head tells it on stdin."""

    def __init__(
        self, info: ConnectionInfo, start: dict[str, Any], listening: socket.socket, log: Log
    ) -> None:
        self._info = info
        self._start = start
        self._listening = listening
        self._log = log

    def run(self) -> int:
        """Serve to the end; the exit code."""
        end_with_parent(self._info.pid)  # stopped, it would not see that its stdin has ended
        raise_descriptor_limit()
        set_process_name(PROCESS_NAME)
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
        # What accepts inherits it: one that does not read costs the system no more than this.
        size = http_limits.SEND_BYTES
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        asyncio.run(self._serve())
        return 0

    async def _serve(self) -> None:
        start = self._start
        hosts = guard.own_names(start["host"], start["names"], _addresses())
        which = (float(start["codes_after_s"]), Path(start["connection"]))
        service = Service(self._info, hosts, *which)
        sampler = Sampler(service)
        app = guard.Guard(application(service, sampler), service, self._log)
        loop = asyncio.get_running_loop()
        options = connection.options()
        if start["cert"]:
            options |= {"ssl_certfile": start["cert"], "ssl_keyfile": start["key"] or None}
            # uvicorn has no option for it: who does not shake hands is not waited for.
            within = {"ssl_handshake_timeout": http_limits.HEADER_S}
            loop.create_server = partial(loop.create_server, **within)  # type: ignore[method-assign]
        self._uvicorn = uvicorn.Server(uvicorn.Config(app, **options))
        loop.add_reader(0, self._head_speaks, service)
        tasks = [
            asyncio.create_task(self._sample(sampler)),
            asyncio.create_task(self._end_when_idle(service, float(start["idle_s"]))),
        ]
        try:
            await self._uvicorn.serve(sockets=[self._listening])
        finally:
            for task in tasks:
                task.cancel()
        os._exit(0)  # threads may wait for a head or node that says nothing

    async def _sample(self, sampler: Sampler) -> None:
        while True:
            try:
                await sampler.run()
            except Exception as error:
                self._log(f"sampling failed, it goes on: {with_traceback(error)}")
                await asyncio.sleep(http_limits.LIVE_S)

    async def _end_when_idle(self, service: Service, idle_s: float) -> None:
        while service.idle_s() < idle_s:
            await asyncio.sleep(min(idle_s * LOOK_S, idle_s - service.idle_s() + 0.01, 10.0))
        self._end(service)

    def _head_speaks(self, service: Service) -> None:
        """It says nothing more, so this is its end."""
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            self._end(service)

    def _end(self, service: Service) -> None:
        """Accept nobody any more at once: the socket's queue is another process's from now on."""
        for server in getattr(self._uvicorn, "servers", ()):
            server.close()
        self._uvicorn.should_exit = True
        service.ending.set()
        asyncio.get_running_loop().call_later(LAST_WORDS_S, os._exit, 0)


def _addresses() -> list[str]:
    """Of this machine: an address in numbers is no name that another site could make its own."""
    found = [socket.gethostname()]
    for entries in psutil.net_if_addrs().values():
        found += [
            one.address.partition("%")[0] for one in entries if one.family.name != "AF_PACKET"
        ]
    return found
