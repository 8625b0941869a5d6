"""Owns what lets a browser or a script in: the token, codes for one login, cookies of browsers.

All derive from the key in the connection file: whoever has that file has the cluster. Must never
show a secret in a repr, a message or a log line.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from typing import Final, NamedTuple

from zray import limits
from zray.runtime.connection import ConnectionInfo

_SALT: Final = b"zray web 1"
_PREFIX: Final = "zray_web_"  # lets secret scanners recognise a leaked token
_STAMP: Final = struct.Struct(">16sd")  # a number used once, and a time in seconds since 1970
_MAC_BYTES: Final = 32
_TEXT_MAX: Final = 128
_CLOCKS_APART_S: Final = 5.0  # between the machine of the command and that of the head


class Stamp(NamedTuple):
    """What a code or a cookie says. ``time_s``: when it was made."""

    number: bytes
    time_s: float


class WebKeys:
    """Of one cluster. ``secret``: what those who may use it share."""

    __slots__ = ("_seed",)

    def __init__(self, secret: bytes) -> None:
        self._seed = hmac.digest(_SALT, secret, "sha256")

    @classmethod
    def of(cls, info: ConnectionInfo) -> WebKeys:
        """Those of the cluster that a connection file opens."""
        return cls(info.client_secret)

    def __repr__(self) -> str:
        return "<WebKeys>"

    # ---- scripts ---------------------------------------------------------------------------

    @property
    def token(self) -> str:
        """What a script says in its header ``Authorization: Bearer``."""
        return _PREFIX + _text(self._mac(b"token", b""))

    def is_token(self, text: str) -> bool:
        """Whether this is it; takes as long for one that nearly is."""
        return hmac.compare_digest(text.encode(), self.token.encode())

    # ---- browsers --------------------------------------------------------------------------

    def code(self, now_s: float) -> str:
        """One that logs a browser in, once, within ``limits.LOGIN_CODE_S``."""
        return self._made(b"code", now_s)

    def read_code(self, text: str, now_s: float) -> Stamp | None:
        """What it says, if it is one of this cluster and not too old."""
        stamp = self._read(b"code", text)
        if stamp is None or not -_CLOCKS_APART_S <= now_s - stamp.time_s <= limits.LOGIN_CODE_S:
            return None
        return stamp

    def cookie(self, now_s: float) -> str:
        """That of a browser that has logged in."""
        return self._made(b"cookie", now_s)

    def read_cookie(self, text: str, now_s: float) -> Stamp | None:
        """What it says, if it is one of this cluster and not too old."""
        stamp = self._read(b"cookie", text)
        if stamp is None or not -_CLOCKS_APART_S <= now_s - stamp.time_s <= limits.LOGIN_S:
            return None
        return stamp

    def csrf(self, stamp: Stamp) -> str:
        """What a page of this browser's session says with each change that it asks for."""
        return _text(self._mac(b"csrf", _STAMP.pack(*stamp)))

    # ---- making ----------------------------------------------------------------------------

    def _made(self, label: bytes, now_s: float) -> str:
        stamp = _STAMP.pack(secrets.token_bytes(16), now_s)
        return _text(stamp + self._mac(label, stamp))

    def _read(self, label: bytes, text: str) -> Stamp | None:
        if len(text) > _TEXT_MAX:
            return None
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        stamp, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if len(stamp) != _STAMP.size or not hmac.compare_digest(mac, self._mac(label, stamp)):
            return None
        return Stamp(*_STAMP.unpack(stamp))

    def _mac(self, label: bytes, data: bytes) -> bytes:
        return hmac.digest(self._seed, label + b"\0" + data, "sha256")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
