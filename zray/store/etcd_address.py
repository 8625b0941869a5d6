"""Where an etcd is and how to enter it, from what a user says. Connects to nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

SCHEMES: Final = {"etcd": "http", "etcds": "https"}
PORT: Final = 2379
MEMBERS_MAX: Final = 64

_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_FILES: Final = {
    "authority": "ZRAY_ETCD_CA",
    "certificate": "ZRAY_ETCD_CERT",
    "key": "ZRAY_ETCD_KEY",
}
_USER: Final = "ZRAY_ETCD_USER"
_PASSWORD: Final = "ZRAY_ETCD_PASSWORD"
VARIABLES: Final = (*_FILES.values(), _USER, _PASSWORD)


class EtcdAddress(NamedTuple):
    """Attributes:
    endpoints: such as ``http://h1:2379``, at least one.
    authority: a file with the certificates that members' are signed by; empty: the system's.
    certificate, key: files of a client's certificate; empty: none.
    user, password: empty: nobody.
    """

    endpoints: tuple[str, ...]
    authority: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password: str = ""

    def where(self, name: str) -> str:
        """The store of the cluster ``name``, in messages."""
        return f"etcd at {','.join(self.endpoints)} (/zray/{name}/)"

    def __repr__(self) -> str:
        return f"EtcdAddress({', '.join(self.endpoints)})"


def parse(text: str, environment: Mapping[str, str]) -> EtcdAddress:
    """``etcd://h1:2379,h2:2379`` or ``etcds://...``, with the variables ``ZRAY_ETCD_*``.

    Raises:
        ValueError: it is no such address, or the variables do not go together.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"{text!r} is no store; write etcd://HOST:PORT,... or etcds:// with TLS")
    if "@" in rest:
        # Who sees the list of processes would see the password.
        raise ValueError(f"the store's user and password go in {_USER} and {_PASSWORD}, not here")
    found = [_endpoint(SCHEMES[scheme], one.strip()) for one in rest.removesuffix("/").split(",")]
    endpoints = tuple(dict.fromkeys(found))
    if len(endpoints) > MEMBERS_MAX:
        raise ValueError(f"an etcd has at most {MEMBERS_MAX} members here, not {len(endpoints)}")
    files = {field: environment.get(name, "") for field, name in _FILES.items()}
    given = [name for field, name in _FILES.items() if files[field]]
    if given and scheme != "etcds":
        raise ValueError(f"{given[0]} is set, and {scheme}:// is not encrypted; write etcds://")
    if bool(files["certificate"]) != bool(files["key"]):
        raise ValueError("ZRAY_ETCD_CERT and ZRAY_ETCD_KEY go together, and one is not set")
    user, password = environment.get(_USER, ""), environment.get(_PASSWORD, "")
    if bool(user) != bool(password):
        raise ValueError(f"{_USER} and {_PASSWORD} go together, and one is not set")
    return EtcdAddress(endpoints, **files, user=user, password=password)


def _endpoint(protocol: str, text: str) -> str:
    matched = _ENDPOINT.fullmatch(text)
    if matched is None or not 0 < int(matched[2] or PORT) < 65536:
        raise ValueError(f"{text!r} is no member of an etcd; write HOST:PORT, or [IPV6]:PORT")
    return f"{protocol}://{matched[1]}:{matched[2] or PORT}"
