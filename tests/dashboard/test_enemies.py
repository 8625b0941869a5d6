"""Clients that keep no rule: floods, half requests, viewers that do not read, endless bodies."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any

from tests.real_cluster import until
from zray.dashboard import http_limits

GROWTH_BYTES = 64 << 20


def answer_of(connection: socket.socket) -> bytes:
    """What comes until the end of the connection."""
    connection.settimeout(20)
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def is_cut(connection: socket.socket) -> bool:
    """Whether the other side has ended it, by now."""
    connection.settimeout(0.0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def works(site: Any) -> bool:
    return bool(site.get("/api/v1/cluster")["nodes"])


def test_what_is_no_request_ends_its_own_connection(site: Any) -> None:
    for data in (
        b"\x00\xff" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 200,
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n",
    ):
        with site.connect() as connection:
            try:
                connection.sendall(data)
            except ConnectionError:
                continue  # it was cut while it was sent
            connection.settimeout(5)
            try:
                said = connection.recv(65536)
            except ConnectionError:
                continue
            assert not said or said.split()[1].startswith((b"4", b"5")), (data[:40], said[:80])
    assert works(site)


def test_a_body_without_end_is_refused_before_it_has_come(site: Any) -> None:
    token = site.keys().token.encode()
    begin = (
        b"POST /api/v1/kill HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        + token
        + b"\r\nContent-Type: application/json\r\n"
    )
    with site.connect() as connection:
        connection.sendall(begin + b"Content-Length: 5000000000\r\n\r\n")
        assert connection.recv(100).split()[1] == b"413"
    with site.connect() as connection:
        connection.sendall(begin + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        sent = 0
        try:
            while sent < 64 << 20 and not is_cut(connection):
                connection.settimeout(5)
                connection.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        assert sent < 32 << 20
    assert works(site)


def test_who_goes_away_in_the_middle_is_no_fault_of_the_dashboard(site: Any) -> None:
    token = site.keys().token.encode()
    begin = (
        b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + b"\r\n"
        b"Content-Type: application/json\r\n"
    )
    for data in (
        b"POST /api/v1/kill" + begin + b"Content-Length: 100\r\n\r\n{",
        b"GET /api/v1/tasks" + begin + b"\r\n",
        b"GET /api/v1/stream" + begin + b"\r\n",
        b"GET /api/v1/logs/head/follow" + begin + b"\r\n",
    ):
        for _ in range(5):
            with site.connect() as connection:
                connection.sendall(data)
    assert works(site)
    assert "a request failed" not in site.cluster.head.text()


def test_half_a_request_is_waited_for_only_so_long(site: Any) -> None:
    with ExitStack() as stack:
        silent = stack.enter_context(site.connect())
        slow = stack.enter_context(site.connect())
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        second = stack.enter_context(site.connect())
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal")
        body = stack.enter_context(site.connect())
        body.sendall(
            b"POST /api/v1/kill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + site.keys().token.encode() + b"\r\n"
            b"Content-Length: 1000\r\n\r\n"
        )
        began = time.monotonic()
        pending = {silent, slow}

        def all_cut() -> bool:
            pending.difference_update([one for one in pending if is_cut(one)])
            if pending and time.monotonic() - began < http_limits.HEADER_S - 2:
                slow.setblocking(True)
                slow.sendall(b"s")  # a byte now and then makes it no request
                body.sendall(b"x")
                time.sleep(0.5)
            return not pending

        until(all_cut, 2 * http_limits.HEADER_S, "they are cut off")
        said = answer_of(second)
        assert b"200" in said[:20]
        assert b"408" in answer_of(body)[:20]
        assert time.monotonic() - began < 2 * http_limits.HEADER_S + 5
    assert works(site)


def test_idle_connections_make_room_for_others(site: Any) -> None:
    process = site.process()
    with ExitStack() as stack:
        idle = [stack.enter_context(site.connect()) for _ in range(2 * http_limits.CONNECTIONS_MAX)]
        assert works(site)
        assert sum(is_cut(one) for one in idle) >= http_limits.CONNECTIONS_MAX // 2
        assert process.num_fds() < http_limits.CONNECTIONS_MAX + 100
    assert site.process() == process


def test_viewers_that_do_not_read_cost_little_and_others_see_all(site: Any, stream_of: Any) -> None:
    process = site.process()
    before = process.memory_info().rss
    request = (
        f"GET /api/v1/events?limit=1000 HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {site.keys().token}\r\n\r\n"
    ).encode()
    stream = request.replace(b"/api/v1/events?limit=1000", b"/api/v1/stream")
    with ExitStack() as stack:
        for data in [request * 50] * 20 + [stream] * http_limits.STREAMS_MAX:
            connection = stack.enter_context(site.connect())
            connection.settimeout(0.5)
            try:
                connection.sendall(data)
            except TimeoutError:
                pass
        with site.script() as client:
            refused = client.get("/api/v1/stream")
            assert refused.status_code == 503 and refused.headers["retry-after"]
        time.sleep(3)
        assert works(site)
        assert process.memory_info().rss - before < GROWTH_BYTES

    def gone() -> bool:
        with site.script() as client, client.stream("GET", "/api/v1/stream") as answer:
            if answer.status_code != 200:
                return False
            return bool(stream_of(answer).next("overview")["viewers"] == 1)

    until(gone, 20, "those who have gone are forgotten")


def test_more_questions_than_may_wait_are_refused_and_the_head_goes_on(site: Any) -> None:
    token = site.keys().token
    request = (
        f"GET /api/v1/tasks/summary HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        connections = [stack.enter_context(site.connect()) for _ in range(200)]
        for connection in connections:
            connection.sendall(request)
        time.sleep(http_limits.LIVE_S)  # what is known of the health is too old by now
        with site.stranger() as client:
            health = client.get("/healthz")
        assert health.text != "DOWN", "it is busy, and its head is well"
        answers = [answer_of(connection)[:12] for connection in connections]
    assert {one for one in answers if one} <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
    assert answers.count(b"HTTP/1.1 200") >= http_limits.QUESTIONS_AT_ONCE
    assert works(site)
