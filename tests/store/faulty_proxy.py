"""A proxy before an etcd that loses answers, or keeps them for a while. Owns threads and a port."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class FaultyProxy:
    """Passes requests on; ``lose`` may say of an answer that it is lost: the connection breaks.

    Attributes:
        delay_s: so long each answer takes more.
        lose: called with each request (its first part) whose answer is there; true: it is lost.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.delay_s = 0.0
        self.lose: Callable[[bytes], bool] = lambda request: False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"etcd://127.0.0.1:{self.port}"

    def close(self) -> None:
        for one in [self._server, *self._sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._sockets.append(client)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        """Request after request of one connection: httpx sends the next after the answer."""
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        self._sockets.append(server)
        with contextlib.suppress(OSError), client, server:
            while request := _message(client):
                server.sendall(request)
                answer = _message(server)
                time.sleep(self.delay_s)
                if not answer or self.lose(request):
                    return
                client.sendall(answer)


def _message(source: socket.socket) -> bytes:
    """The next one of HTTP; empty: there is none."""
    found = b""
    while more := source.recv(1 << 16):
        found += more
        head, separator, body = found.partition(b"\r\n\r\n")
        if separator and _is_whole(head.lower(), body):
            break
    return found


def _is_whole(head: bytes, body: bytes) -> bool:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(body) >= int(value)
        if name == b"transfer-encoding":
            return b"\r\n0\r\n" in b"\r\n" + body and body.endswith(b"\r\n\r\n")
    return True
