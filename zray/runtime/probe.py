"""Owns the question "why can the head at this address not be used?": TCP, greeting, handshake.

Must never send a key or wait without a bound.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import threading
import time
from typing import Final

import zmq

from zray import limits
from zray.errors import (
    AuthenticationError,
    EncryptionMismatchError,
    HeadConnectionError,
    HeadSilentError,
    NothingListensError,
    NotZrayError,
    UnknownHostError,
    WrongHeadError,
)
from zray.runtime.connection import format_address

DIAGNOSE_S: Final = 3.0
_GREETING_S: Final = 1.0  # a ZMTP peer answers in one round trip
_TARGETS_MAX: Final = 4
_GREETING: Final = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01"  # ZMTP 3.1: signature, version
_GREETING_BYTES: Final = 64
_MECHANISM: Final = slice(12, 32)
_HTTP_NUDGE: Final = b"\r\n\r\n"
_PORTS: Final = f"a head's is usually {limits.HEAD_PORT}, the dashboard's 8265 is for browsers"


def diagnose(host: str, port: int, timeout_s: float = DIAGNOSE_S) -> str:
    """Check, without a key, that an encrypted ZMTP server answers; return its numeric address.

    Takes at most ``timeout_s`` seconds; a server that answers takes a round trip or two.

    Raises:
        UnknownHostError: the name has no address, or the name server does not say in time.
        NothingListensError: no TCP connection, refused or without an answer.
        NotZrayError: something accepts the connection and speaks another protocol, or nothing.
        EncryptionMismatchError: it speaks ZMTP without CURVE.
    """
    deadline = time.monotonic() + timeout_s
    name = format_address(host, port)
    targets = _resolve(host, port, deadline)
    connection, target = _connect(targets, port, name, deadline)
    with connection:
        greeting = _greeting(connection, min(deadline, time.monotonic() + _GREETING_S))
    if not greeting:
        raise NotZrayError(
            f"{name} accepts connections but says nothing: it is no zray head, or one that is"
            f" stopped or overloaded; check that the port is right ({_PORTS})"
        )
    if greeting[:1] != b"\xff" or greeting[9:10] != b"\x7f":
        raise NotZrayError(
            f"{name} is no zray head: {_what_it_says(greeting)}; check that the port is right"
            f" ({_PORTS})"
        )
    if len(greeting) < _GREETING_BYTES:
        raise NotZrayError(
            f"{name} broke off its ZeroMQ greeting, so it is no zray head, or one that is just"
            " stopping; check the address and try again"
        )
    mechanism = greeting[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")
    if mechanism != "CURVE":
        raise EncryptionMismatchError(
            f"{name} speaks ZeroMQ without encryption (mechanism {mechanism[:20]!r}), and zray"
            " connects only with it; it is another program's port, or a head that was started"
            " without encryption"
        )
    return target


def explain_monitor_event(event: int, value: int, address: str) -> HeadConnectionError | None:
    """The error that a client's monitor event means, or None where it means none.

    CLOSED, DISCONNECTED and a handshake without details do not tell what is at the other end:
    :func:`diagnose` the address first, and come here when it has no objection.

    Args:
        event: the event's number, one of ``zmq.EVENT_*``.
        value: the event's value.
        address: ``host:port``, for the message.
    """
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        if value == 400:
            return AuthenticationError(
                f"the head at {address} refused this process's key: the connection file is of"
                " another cluster or out of date; copy connection.json from the head's machine"
                " again and name it in ZRAY_CONNECTION_FILE"
            )
        return _unanswered(address, f"its authenticator says {value}")
    if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        if value == errno.EAGAIN:
            return _unanswered(address, "the handshake was not answered")
        # A server that cannot decrypt the first message hangs up without a word.
        return _wrong_head(address)
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return EncryptionMismatchError(
                f"of {address} and this process only one side encrypts; a zray head always does,"
                " so check the address and that both sides have the same zray version"
            )
        if value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
            return _wrong_head(address)
        return NotZrayError(
            f"{address} broke the ZeroMQ handshake (protocol error {value:#x}); check that it is a"
            " zray head's address"
        )
    return None


def _wrong_head(address: str) -> WrongHeadError:
    return WrongHeadError(
        f"the head at {address} does not hold the key that the connection file names: it belongs"
        " to another cluster, or pretends to be this one; check the address, and copy"
        " connection.json from the machine of the head that is meant"
    )


def _unanswered(address: str, how: str) -> HeadSilentError:
    return HeadSilentError(
        f"the head at {address} does not admit anybody now ({how}): it is overloaded or stopping;"
        " try again, and see the head's log if it goes on"
    )


def _resolve(host: str, port: int, deadline: float) -> list[str]:
    """The numeric addresses of ``host``, in the order to try them."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    answers: list[str] = []
    failures: list[OSError | UnicodeError] = []

    def ask() -> None:
        try:
            for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                answers.append(str(entry[4][0]))
        except (OSError, UnicodeError) as error:
            failures.append(error)

    # The resolver has no time limit of its own that this process could set.
    thread = threading.Thread(target=ask, name="zray-resolve", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if thread.is_alive():
        raise UnknownHostError(
            f"the name server did not say in time which address {host!r} has; write the numeric"
            " address, or check this machine's network"
        )
    if failures or not answers:
        reason = getattr(failures[0], "strerror", None) if failures else None
        raise UnknownHostError(
            f"the host {host!r} is not known ({reason or 'no address'}); check the spelling, or"
            " write the numeric address"
        )
    return list(dict.fromkeys(answers))[:_TARGETS_MAX]


def _connect(
    targets: list[str], port: int, name: str, deadline: float
) -> tuple[socket.socket, str]:
    refused = False
    reason = ""
    for index, target in enumerate(targets):
        remaining = max(0.01, deadline - time.monotonic())
        try:
            # An equal share for each address that is left, so that a dead one costs only its own.
            share = remaining / (len(targets) - index)
            return socket.create_connection((target, port), share), target
        except ConnectionRefusedError:
            refused = True
        except TimeoutError:
            reason = reason or "no answer in time"
        except OSError as error:
            reason = reason or error.strerror or str(error)
    if refused:
        raise NothingListensError(
            f"nothing listens on {name} (connection refused); is the head running? Start one with"
            " zray-head, or check host and port"
        )
    raise NothingListensError(
        f"{name} cannot be reached ({reason}): the machine is off, or a firewall or another"
        " network is between; check the host, and that its port is open from here"
    )


def _greeting(connection: socket.socket, deadline: float) -> bytes:
    """What the peer says to ours, at most the 64 bytes of a ZMTP greeting."""
    received = b""
    nudged = False
    with contextlib.suppress(OSError):
        connection.sendall(_GREETING)
        while len(received) < _GREETING_BYTES:  # or until it is none
            now = time.monotonic()
            if now >= deadline:
                break
            # Half of the time for ZMTP; then an empty line, at which an HTTP server complains.
            connection.settimeout(deadline - now if nudged else (deadline - now) / 2)
            try:
                chunk = connection.recv(_GREETING_BYTES - len(received))
            except TimeoutError:
                if received or nudged:
                    break
                connection.sendall(_HTTP_NUDGE)
                nudged = True
                continue
            if not chunk:
                break
            received += chunk
            if received[:1] != b"\xff":
                break
    return received


def _what_it_says(greeting: bytes) -> str:
    if greeting.startswith(b"HTTP/") or b"<html" in greeting.lower():
        return "it speaks HTTP"
    if greeting[:2] in (b"\x15\x03", b"\x16\x03"):
        return "it speaks TLS"
    first = greeting[:24].decode("ascii", "backslashreplace")
    return f"it says {first!r}"
