"""etcd's JSON gateway: one request at a time, of the members whoever answers. Decides nothing else.

Python's etcd clients do not load with today's protobuf, or go deaf after a restart of a member, so
this goes by way of httpx.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from zray.errors import StoreError
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_layout import Operation
from zray.store.etcd_wire import (
    Answer,
    EtcdError,
    NoSpace,
    Pair,
    Unavailable,
    accepted,
    encoded,
    is_about_token,
    operation_of,
    pair,
    revision_of,
)

if TYPE_CHECKING:
    import ssl

_CONNECT_S: Final = 1.0
_ATTEMPT_S: Final = 0.5  # until another member is asked; longer where all are slow
_ATTEMPT_MAX_S: Final = 16.0
_FORGET: Final = 0.8  # of how long others took, with each answer
_PAUSE_S: Final = 0.05  # after all members were asked in vain
_PAUSE_MAX_S: Final = 0.5
_PAGE_ROWS: Final = 256


class Gateway:
    """Requests to the members of one etcd; for one thread at a time."""

    def __init__(self, address: EtcdAddress) -> None:
        """
        Raises:
            StoreError: httpx is not installed, or a file of certificates cannot be used.
        """
        self._address = address
        self._current = 0
        self._token = ""
        self._patience_s = _ATTEMPT_S
        verify = verification(address)
        import httpx

        # Proxies and .netrc of the environment are for the web, not for what the head stands on.
        self._client = httpx.Client(verify=verify, trust_env=False)

    def close(self) -> None:
        self._client.close()

    # ---- requests --------------------------------------------------------------------------

    def transact(
        self,
        terms: list[dict[str, Any]],
        operations: list[Operation],
        otherwise: list[bytes],
        deadline_s: float,
    ) -> Answer:
        """``operations`` where all ``terms`` hold, else read the keys ``otherwise``.

        Raises:
            EtcdError: refused; Unavailable: nobody has answered, it may be applied or not.
        """
        found = self.call(
            "kv/txn",
            {
                "compare": terms,
                "success": [operation_of(one) for one in operations],
                "failure": [{"request_range": {"key": encoded(key)}} for key in otherwise],
            },
            deadline_s,
        )
        pairs = [
            pair(one)
            for response in found.get("responses", ())
            for one in response.get("response_range", {}).get("kvs", ())
        ]
        return Answer(bool(found.get("succeeded")), pairs, revision_of(found))

    def get(self, key: bytes, deadline_s: float) -> tuple[Pair | None, int]:
        """The key's value as of now, and the store's revision."""
        found = self.call("kv/range", {"key": encoded(key)}, deadline_s)
        pairs = [pair(one) for one in found.get("kvs", ())]
        return (pairs[0] if pairs else None), revision_of(found)

    def page(
        self,
        start: bytes,
        end: bytes,
        deadline_s: float,
        *,
        revision: int = 0,
        rows: int = _PAGE_ROWS,
        keys_only: bool = False,
    ) -> tuple[list[Pair], bool, int]:
        """The first keys from ``start`` up to ``end``; whether there are more; of which revision.

        Args:
            revision: as of then; 0: as of now.

        Raises:
            EtcdError: refused, as where history was compacted meanwhile. Unavailable: no answer.
        """
        found = self.call(
            "kv/range",
            {
                "key": encoded(start),
                "range_end": encoded(end),
                "limit": str(rows),
                "revision": str(revision),
                "keys_only": keys_only,
            },
            deadline_s,
        )
        pairs = [pair(one) for one in found.get("kvs", ())]
        return pairs, bool(found.get("more")) and bool(pairs), revision or revision_of(found)

    def call(self, method: str, body: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """Ask member after member until one has answered, or ``deadline_s`` of the monotonic clock.

        What is asked may be carried out more than once.

        Raises:
            EtcdError: refused. Unavailable: nobody has answered.
        """
        pause_s, asked, entered = _PAUSE_S, 0, False
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                return self._ask(method, body, max(left_s, 0.01))
            except Unavailable as error:
                self._turn()
                asked += 1
                if isinstance(error, NoSpace):
                    raise
                if asked % len(self._address.endpoints) == 0:
                    pause_s = min(2 * pause_s, _PAUSE_MAX_S)
                    if time.monotonic() + pause_s < deadline_s:
                        time.sleep(pause_s)
                if time.monotonic() + 0.01 >= deadline_s:
                    raise
            except EtcdError as error:
                if entered or not self._address.user or not is_about_token(error):
                    raise
                entered, self._token = True, ""

    # ---- one request -----------------------------------------------------------------------

    def _ask(self, method: str, body: dict[str, Any], left_s: float) -> dict[str, Any]:
        if self._address.user and not self._token:
            who = {"name": self._address.user, "password": self._address.password}
            self._token = self._post("auth/authenticate", who, left_s).get("token", "")
        return self._post(method, body, left_s)

    def _post(self, method: str, body: dict[str, Any], left_s: float) -> dict[str, Any]:
        import httpx

        endpoint = self._endpoint()
        waited_s, began = min(left_s, self._patience_s), time.monotonic()
        timeout = httpx.Timeout(waited_s, connect=min(_CONNECT_S, waited_s))
        try:
            answer = self._client.post(
                f"{endpoint}/v3/{method}", json=body, headers=self._headers(), timeout=timeout
            )
        except httpx.TimeoutException as error:
            if not isinstance(error, httpx.ConnectTimeout):
                self._patience_s = min(2 * self._patience_s, _ATTEMPT_MAX_S)
            raise Unavailable(f"{endpoint} has not answered for {waited_s:.1f} s") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{endpoint} cannot be asked: {reason}") from error
        found: Any = None
        with contextlib.suppress(ValueError):
            found = answer.json()
        fields = accepted(endpoint, answer.status_code, found)
        took_s = time.monotonic() - began
        self._patience_s = max(_ATTEMPT_S, 2 * took_s, _FORGET * self._patience_s)
        return fields

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _endpoint(self) -> str:
        return self._address.endpoints[self._current]

    def _turn(self) -> None:
        self._current = (self._current + 1) % len(self._address.endpoints)
        self._token = ""  # simple tokens are of one member


def verification(address: EtcdAddress) -> ssl.SSLContext | bool:
    """How members' certificates are looked at, and this head's own is shown.

    Raises:
        StoreError: httpx is not installed, or a file of certificates cannot be used.
    """
    try:
        import httpx  # noqa: F401 - what uses this cannot do without it
    except ImportError as error:
        raise StoreError(
            f"a store on etcd needs httpx, which cannot be imported ({error}). The head does not "
            'start. Install it: pip install "zray[etcd]".'
        ) from error
    import ssl

    if not address.endpoints[0].startswith("https:"):
        return True
    try:
        verify = ssl.create_default_context(cafile=address.authority or None)
        if address.certificate:
            verify.load_cert_chain(address.certificate, address.key)
    except OSError as error:
        raise StoreError(
            f"the certificates for etcd cannot be used: {error}. The head does not start. "
            "Check ZRAY_ETCD_CA, ZRAY_ETCD_CERT and ZRAY_ETCD_KEY."
        ) from error
    return verify
