"""Binding, connecting and watching sockets with the shipped options."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import zmq

from zray import limits
from zray.errors import PortInUseError, ProtocolError, StartError
from zray.runtime import sockets
from zray.runtime.sockets import Monitor


def test_a_free_port_is_drawn_and_told(network: Any) -> None:
    router = network.router()
    port = sockets.bind(router, "127.0.0.1", 0)
    assert 1024 < port < 65536
    socket.create_connection(("127.0.0.1", port), 1).close()


def test_a_taken_port_names_its_holder(network: Any) -> None:
    head = network.head()
    router = network.router()
    with pytest.raises(PortInUseError, match=f"this process .pid {os.getpid()}.") as raised:
        sockets.bind(router, "127.0.0.1", head.port)
    assert f"127.0.0.1:{head.port}" in str(raised.value)


def test_a_port_taken_by_another_process_names_its_command(network: Any) -> None:
    code = (
        "import socket; s = socket.create_server(('0.0.0.0', 0));"
        " print(s.getsockname()[1], flush=True); input()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        router = network.router()
        with pytest.raises(PortInUseError, match=f"pid {process.pid} .*python.*socket") as raised:
            sockets.bind(router, "127.0.0.1", port)
        assert raised.value.code == "ZR-4001"
        process.communicate("")


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_a_port_out_of_range_is_refused(network: Any, port: int) -> None:
    with pytest.raises(ValueError, match="0 to 65535"):
        sockets.bind(network.router(), "127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "nosuch.invalid"])
def test_an_address_of_another_machine_cannot_be_bound(network: Any, host: str) -> None:
    with pytest.raises(StartError, match="this machine has no address"):
        sockets.bind(network.router(), host, 0)


def test_ipv6_works_or_the_machine_is_said_to_lack_it(network: Any) -> None:
    router = network.router()
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(StartError, match="cannot listen on"):
            sockets.bind(router, "::1", 0)
        return
    port = sockets.bind(router, "::1", 0)
    monitor = Monitor(router)
    dealer = network.dealer()
    watch = Monitor(dealer)
    sockets.connect(dealer, "::1", port)
    assert watch.socket.poll(2000)
    assert watch.read()[0].name == "CONNECTED"
    watch.close()
    monitor.close()


def test_the_options_that_guard_a_server(network: Any) -> None:
    router = network.router()
    assert router.getsockopt(zmq.CURVE_SERVER) == 1
    assert router.getsockopt(zmq.ZAP_DOMAIN).rstrip(b"\0") == b"zray"
    assert router.getsockopt(zmq.MAXMSGSIZE) == limits.FRAME_BYTES_MAX + 33
    assert router.getsockopt(zmq.LINGER) == 0
    assert router.getsockopt(zmq.HANDSHAKE_IVL) == limits.HANDSHAKE_S * 1000
    assert network.dealer().getsockopt(zmq.RECONNECT_IVL) == -1


def test_what_came_without_authentication_has_no_user(network: Any) -> None:
    near, far = network.plain(zmq.PAIR), network.plain(zmq.PAIR)
    near.bind("inproc://pair")
    far.connect("inproc://pair")
    far.send(b"text")
    with pytest.raises(ProtocolError, match="nobody authenticated"):
        sockets.user_id(near.recv(copy=False))


def test_a_monitor_that_nobody_reads_does_not_stop_the_network(network: Any) -> None:
    head = network.head()
    for _ in range(1500):  # anybody can: no key is needed
        socket.create_connection(("127.0.0.1", head.port), 5).close()
    client = network.client(head.port)
    # The head answers the handshake but reads no events, as in a long turn of its loop.
    for _ in range(1000):
        head.zap.handle()
        client.step()
        if "HANDSHAKE_SUCCEEDED" in client.names():
            break
        client.monitor.socket.poll(5)
    else:
        pytest.fail("the client was not let in")


def test_a_monitor_reads_a_bounded_number_of_events(network: Any) -> None:
    head = network.head()
    for _ in range(limits.DRAIN_MESSAGES_MAX):
        socket.create_connection(("127.0.0.1", head.port), 5).close()
    total = 0
    while total < 2 * limits.DRAIN_MESSAGES_MAX:  # a failed handshake and a disconnect each
        assert head.monitor.socket.poll(2000)
        events = head.monitor.read()
        assert len(events) <= limits.DRAIN_MESSAGES_MAX
        total += len(events)
    assert head.monitor.read() == []


@pytest.mark.parametrize("socket_first", [True, False])
def test_a_monitor_closes_before_or_after_its_socket(network: Any, socket_first: bool) -> None:
    dealer = network.dealer()
    monitor = Monitor(dealer)
    if socket_first:
        dealer.close(0)
    monitor.close()
    dealer.close(0)
