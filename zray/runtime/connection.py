"""Owns addresses and connection files: where a cluster is and which keys open it.

Must never put a secret into a repr or a message, nor open a network connection to a remote host.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from zmq.utils import z85

from zray import limits
from zray.errors import KeyFileError
from zray.runtime.keys import read_secret_file, secret_directory, write_secret_file

FILE_VARIABLE: Final = "ZRAY_CONNECTION_FILE"
HOME_VARIABLE: Final = "ZRAY_HOME"
DEFAULT_NAME: Final = "default"
LOCAL_PREFIX: Final = "local-"  # of drivers' own clusters: local-<driver's pid>-<random>
_FILE_NAME: Final = "connection.json"
_TEMPORARY: Final = "/tmp"  # never $TMPDIR, which differs between a user's processes
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,127}")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_WEB_ADDRESS: Final = re.compile(r"(https?://[A-Za-z0-9_.:\[\]-]{1,300})?")
_HEX: Final = re.compile(r"[0-9a-f]{32}")
_SCHEMES: Final = ("zray", "ray", "tcp")
_LOCAL_PROBE_S: Final = 0.2
_CLOCK_SLACK_S: Final = 2.0


class ConnectionInfo(msgspec.Struct, frozen=True):
    """What a client needs to reach a head, and to know that it is the right one.

    Attributes:
        cluster_id: 32 hex digits.
        addresses: ``host:port`` of the head, the best first; an IPv6 host is in brackets.
        server_public: the head's CURVE public key, 40 bytes of Z85.
        client_public: the client's CURVE public key, 40 bytes of Z85.
        client_secret: the client's CURVE secret key, 40 bytes of Z85.
        pid: the head's process id on ``host``.
        started: when the head started, seconds of unix time.
        name: the cluster's name.
        host: the name of the machine the head runs on.
        dashboard: where its page is, as a web address; empty: it has none.
        heads: ``host:port`` of the cluster's other heads, of which one may lead.
    """

    cluster_id: str
    addresses: list[str]
    server_public: bytes
    client_public: bytes
    client_secret: bytes
    pid: int
    started: float
    name: str = DEFAULT_NAME
    host: str = msgspec.field(default_factory=socket.gethostname)
    dashboard: str = ""
    heads: list[str] = []

    def __repr__(self) -> str:
        return f"<ConnectionInfo of cluster {self.name} ({self.cluster_id}) at {self.addresses}>"

    def reachable(self) -> list[str]:
        """Addresses of all heads, its own first.

        Not another machine's loopback: here that is this machine.
        """
        known = [*dict.fromkeys([*self.addresses, *self.heads])]
        if _is_here(self):
            return known
        away = [one for one in known if not _is_loopback_or_wildcard(_host_of(one))]
        return away or known

    def elsewhere(self, tried: Iterable[str]) -> list[str]:
        """Those of them that were not tried."""
        known = {parse_address(address) for address in tried}
        return [one for one in self.reachable() if parse_address(one) not in known]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file with mode 0600; a reader sees the old file or the whole new one.

        Raises:
            KeyFileError: the file cannot be written.
        """
        fields = {name: getattr(self, name) for name in (*_CHECKS, *_LATER)}
        text = json.dumps(fields, default=bytes.decode, indent=2)
        write_secret_file(path, f"{text}\n".encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConnectionInfo:
        """Read a connection file; fields that this version does not know are ignored.

        Raises:
            KeyFileError: the file cannot be read, others may read it, or a field is missing or
                wrong; the message names the field.
        """
        try:
            content = json.loads(read_secret_file(path))
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
            content = None
        if not isinstance(content, dict):
            raise KeyFileError(f"{path} is not a connection file (no JSON object); {_REMEDY}")
        values: dict[str, Any] = {}
        for name, (expected, read) in _CHECKS.items():
            try:
                values[name] = read(content[name])
            except (KeyError, TypeError, ValueError):
                # The value stays out of the message: it may be a secret in the wrong place.
                problem = f"must be {expected}" if name in content else "is missing"
                raise KeyFileError(f"{path}: field {name!r} {problem}; {_REMEDY}") from None
        for name, read in _LATER.items():
            with contextlib.suppress(KeyError, TypeError, ValueError):
                values[name] = read(content[name])
        return cls(**values)


_REMEDY: Final = "copy the file from the head's machine again, or restart the head"


def home() -> Path:
    """The directory of this user's clusters and keys, made (0700) where it does not exist.

    ``ZRAY_HOME`` or ``~/.zray``; ``/tmp/zray-<uid>`` where there is no home that can be written.

    Raises:
        KeyFileError: ``ZRAY_HOME`` cannot be used; or there is no home, and the directory under
            ``/tmp`` is another user's, a link, or writable by others.
    """
    if chosen := os.environ.get(HOME_VARIABLE):
        return secret_directory(Path(chosen).absolute())
    with contextlib.suppress(KeyFileError, RuntimeError):  # RuntimeError: no home directory
        directory = secret_directory(Path.home() / ".zray")
        if os.access(directory, os.W_OK | os.X_OK):
            return directory
    fallback = Path(_TEMPORARY) / f"zray-{os.geteuid()}"
    if fallback.is_symlink():
        raise KeyFileError(
            f"{fallback} is a symbolic link, so another user may have put it there; remove it, or"
            f" set {HOME_VARIABLE} to a directory that only this user can write"
        )
    return secret_directory(fallback)


def cluster_directory(name: str = DEFAULT_NAME) -> Path:
    """``<home>/clusters/<name>``, made where it does not exist.

    Raises:
        ValueError: the name has other characters than letters, digits, ``_ . : -``.
        KeyFileError: see :func:`home`.
    """
    return secret_directory(home() / "clusters" / _name(name))


def connection_path(name: str = DEFAULT_NAME) -> Path:
    """Where the head of cluster ``name`` writes its connection file; raises as the above."""
    return cluster_directory(name) / _FILE_NAME


def find(address: str | None = None) -> ConnectionInfo | None:
    """Find the connection file of the head at ``address``, or of this machine's newest head.

    The file named by ``ZRAY_CONNECTION_FILE`` comes first, then those of ``home()``. Loopback,
    wildcard and this machine's own addresses are the same host; names are not resolved. With an
    address that no file lists, the file in ``ZRAY_CONNECTION_FILE`` is taken at its word. Without
    an address, the cluster named "default" goes before newer ones, and only heads that run on
    this machine count.

    Raises:
        ValueError: the address is malformed.
        KeyFileError: the file in ``ZRAY_CONNECTION_FILE`` is unusable; or no file matches the
            address, and one that might cannot be read.
    """
    wanted = parse_address(address) if address is not None else None
    here = _own_hosts()
    chosen: ConnectionInfo | None = None
    if path := os.environ.get(FILE_VARIABLE):
        chosen = ConnectionInfo.load(path)
        if wanted is None or _serves(chosen, wanted, here):
            return chosen
    unusable: list[KeyFileError] = []
    found = [
        info
        for info in _stored(unusable)
        if (_is_here(info) if wanted is None else _serves(info, wanted, here))
        and (_may_run(info, here) or (wanted is not None and info.heads))
    ]
    if found:
        return max(found, key=lambda info: (wanted is None and _rank(info.name), info.started))
    if chosen is None and wanted is not None and unusable:
        raise unusable[0]
    return chosen


def followed() -> ConnectionInfo | None:
    """The newest file of a head of this machine that was killed, if its cluster has others."""
    here = _own_hosts()
    found = [one for one in _stored([]) if one.heads and _is_here(one)]
    left = [one for one in found if not _may_run(one, here)]
    return max(left, key=lambda one: (_rank(one.name), one.started), default=None)


def find_page(address: str) -> ConnectionInfo | None:
    """The connection file of the head whose page is at that web address, seen from this machine.

    Raises:
        KeyFileError: the file in ``ZRAY_CONNECTION_FILE`` is unusable.
    """
    here = _own_hosts()
    wanted = _place_of_page(address, here)
    chosen = [ConnectionInfo.load(path)] if (path := os.environ.get(FILE_VARIABLE)) else []
    known = [
        info
        for info in (*chosen, *_stored([]))
        if info.dashboard and _place_of_page(info.dashboard, here) == wanted
    ]
    alive = [info for info in known if _may_run(info, here)]
    return max(alive, key=lambda info: info.started) if alive else None


def _place_of_page(address: str, here: Set[str]) -> tuple[str, int | None]:
    """Host and port; "" for this machine under any of its names."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return _canonical(parts.hostname or "", here), port
    except ValueError:
        return address, None


def split_addresses(text: str) -> list[str]:
    """One or more ``host:port``, with commas between them.

    Raises:
        ValueError: as ``parse_address``; or there are too many.
    """
    found = [format_address(*parse_address(part)) for part in text.split(",")]
    most = limits.HEADS_MAX * limits.HEAD_ADDRESSES_MAX
    if len(found) > most:
        raise ValueError(f"{len(found):,} addresses of heads; at most {most} make sense")
    return [*dict.fromkeys(found)]


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` into both; the port defaults to the head's.

    Accepts ``[v6]:port`` and the schemes ``zray://``, ``ray://`` and ``tcp://``.

    Raises:
        ValueError: names what is wrong, and what to write instead where that is clear.
    """
    rest = text.strip()
    if "://" in rest:
        scheme, rest = rest.split("://", 1)
        if scheme.lower() in ("http", "https"):
            raise ValueError(
                f"{text!r} is a web address, and programs connect to the head's own port;"
                f" write zray://HOST:{limits.HEAD_PORT}"
            )
        if scheme.lower() not in _SCHEMES:
            raise ValueError(f"{text!r} has the unknown scheme {scheme!r}; write zray://HOST:PORT")
    rest = rest.removesuffix("/")
    host, port_text = _split(rest, text)
    if not host:
        raise ValueError(f"{text!r} names no host; write HOST:PORT, as in 127.0.0.1:10001")
    if port_text is None and host.isdecimal():
        raise ValueError(f"{text!r} is a port without a host; write 127.0.0.1:{host}")
    _check_host(host, text)
    port = limits.HEAD_PORT if port_text is None else _port(port_text, text)
    if port == limits.DASHBOARD_PORT:
        raise ValueError(
            f"{text!r} has port {limits.DASHBOARD_PORT}, which is the dashboard's; programs connect"
            f" to the head's own port, usually {limits.HEAD_PORT}"
        )
    return host, port


def format_address(host: str, port: int) -> str:
    """``host:port``, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _split(rest: str, text: str) -> tuple[str, str | None]:
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError(f"{text!r} has an unmatched bracket; write [HOST]:PORT")
        return host, tail[1:] if tail else None
    if rest.count(":") > 1:
        raise ValueError(
            f"{text!r} looks like an IPv6 address without brackets; write [HOST]:PORT, as in"
            f" [::1]:{limits.HEAD_PORT}"
        )
    host, colon, tail = rest.partition(":")
    return host, tail if colon else None


def _check_host(host: str, text: str) -> None:
    if ":" in host or host.replace(".", "").isdecimal():
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IP address") from None
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError(
            f"{text!r}: {host!r} is not a host name (letters, digits, '.', '-' and '_');"
            " write HOST:PORT"
        )


def _port(port_text: str, text: str) -> int:
    if not (port_text.isascii() and port_text.isdecimal() and 0 < int(port_text[:6]) < 65536):
        raise ValueError(f"{text!r}: the port must be a number from 1 to 65535, not {port_text!r}")
    return int(port_text)


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a cluster name; use 1 to 128 letters, digits, '_', '.', ':' or '-',"
            " not starting with '.' or ':'"
        )
    return value


def _hex_id(value: object) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError
    return value


def _address_list(value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError
    for address in value:
        if not isinstance(address, str):
            raise TypeError
        parse_address(address)
    return value


def _curve_key(value: object) -> bytes:
    if not isinstance(value, str) or len(value) != 40:
        raise ValueError
    key = value.encode("ascii")
    try:
        z85.decode(key)
    except (KeyError, struct.error):  # no Z85 digit; a group of five over 32 bits
        raise ValueError from None
    return key


def _process_id(value: object) -> int:
    if type(value) is not int or not 0 < value < 1 << 31:
        raise ValueError
    return value


def _unix_time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 53:
        raise ValueError
    return float(value)


def _host(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise ValueError
    return value


def _web_address(value: object) -> str:
    if not isinstance(value, str) or not _WEB_ADDRESS.fullmatch(value):
        raise ValueError
    return value


# Field of the file: what it must be, in words, and the function that reads it or raises.
_CHECKS: Final[dict[str, tuple[str, Callable[[object], object]]]] = {
    "cluster_id": ("32 lower-case hex digits", _hex_id),
    "addresses": ("a list of one or more HOST:PORT texts", _address_list),
    "server_public": ("a key of 40 Z85 characters", _curve_key),
    "client_public": ("a key of 40 Z85 characters", _curve_key),
    "client_secret": ("a key of 40 Z85 characters", _curve_key),
    "pid": ("a process id", _process_id),
    "started": ("a unix time in seconds", _unix_time),
    "name": ("1 to 128 letters, digits, '_', '.', ':' or '-'", _name),
    "host": ("a host name", _host),
}
# What files of earlier heads do not have: a connection needs none of it.
_LATER: Final[dict[str, Callable[[object], object]]] = {
    "dashboard": _web_address,
    "heads": _address_list,
}


def _stored(unusable: list[KeyFileError]) -> Iterator[ConnectionInfo]:
    for path in sorted(home().glob(f"clusters/*/{_FILE_NAME}")):
        try:
            yield ConnectionInfo.load(path)
        except KeyFileError as error:
            if os.path.lexists(path):  # else a head removed it meanwhile
                unusable.append(error)


def _rank(name: str) -> int:
    """Where no address is given: the default cluster first, those of programs' own last."""
    return 2 if name == DEFAULT_NAME else 0 if name.startswith(LOCAL_PREFIX) else 1


def _is_here(info: ConnectionInfo) -> bool:
    return info.host == socket.gethostname()


def _serves(info: ConnectionInfo, wanted: tuple[str, int], here: Set[str]) -> bool:
    """Whether ``wanted`` is an address of the head, seen from this machine."""
    known = {
        (_canonical(host, here), port)
        for host, port in map(parse_address, [*info.addresses, *info.heads])
        # Another machine's loopback is not this machine's.
        if _is_here(info) or not _is_loopback_or_wildcard(host)
    }
    return (_canonical(wanted[0], here), wanted[1]) in known


def _canonical(host: str, here: Set[str]) -> str:
    """The host in one spelling; "" for this machine under any of its names."""
    name = host.casefold().removesuffix(".")
    with contextlib.suppress(ValueError):
        name = str(ipaddress.ip_address(name))
    return "" if _is_loopback_or_wildcard(name) or name in here else name


def _host_of(address: str) -> str:
    return parse_address(address)[0]


def _is_loopback_or_wildcard(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.casefold() in ("localhost", "localhost.localdomain")
    return address.is_loopback or address.is_unspecified


def _own_hosts() -> set[str]:
    import psutil  # large, and a daemon that runs does without

    name = socket.gethostname().casefold()
    hosts = {name, name.partition(".")[0]}
    for addresses in psutil.net_if_addrs().values():
        for entry in addresses:
            with contextlib.suppress(ValueError):  # a hardware address
                hosts.add(str(ipaddress.ip_address(entry.address.partition("%")[0])))
    return hosts


def _may_run(info: ConnectionInfo, here: Set[str]) -> bool:
    """Whether the head may still run: not, where its pid on this machine is gone or reused."""
    if not _is_here(info):
        return True
    import psutil

    try:
        process = psutil.Process(info.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        created = process.create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    if created <= info.started + _CLOCK_SLACK_S:
        return True
    # A reused pid, or a clock that was set since: the listening port tells which.
    return any(_listens(*parse_address(address), here) for address in info.addresses)


def _listens(host: str, port: int, here: Set[str]) -> bool:
    if not _canonical(host, here):
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), _LOCAL_PROBE_S).close()
            return True
    return False
