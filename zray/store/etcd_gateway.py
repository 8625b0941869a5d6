"""etcd's JSON gateway: one request at a time, of the members whoever answers. Decides nothing else.

https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/. 64-bit integers are texts there, and fields
that are zero, false or empty are left out. Python's etcd clients do not load with today's protobuf,
or go deaf after a restart of a member (and none resumes a watch), so this goes by way of httpx.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zray.errors import StoreError
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_layout import Delete, Operation

if TYPE_CHECKING:
    import httpx

_CONNECT_S: Final = 1.0
_ATTEMPT_S: Final = 2.0  # until another member is asked; longer after each time nobody answered
_ATTEMPT_MAX_S: Final = 16.0
_PAUSE_S: Final = 0.05  # after all members were asked in vain
_PAUSE_MAX_S: Final = 0.5
_PAGE_ROWS: Final = 256

# Codes of gRPC: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
_INVALID, _DEADLINE, _NOT_FOUND, _EXHAUSTED = 3, 4, 5, 8
_UNAVAILABLE, _UNAUTHENTICATED = 14, 16
OUT_OF_RANGE: Final = 11  # what was asked for was compacted


class Pair(NamedTuple):
    """A key with its value, and the revision of the store in which it was created."""

    key: bytes
    value: bytes
    created: int


class Answer(NamedTuple):
    """Of a transaction: whether its terms held, and what it has read."""

    succeeded: bool
    pairs: list[Pair]
    revision: int


class EtcdError(Exception):
    """etcd has refused a request, which a repetition does not change."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Unavailable(EtcdError):
    """Nobody has answered in time, or nobody could. The request may have been carried out."""


class NoSpace(Unavailable):
    """etcd stores nothing until somebody makes room in it."""


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
        self._client = _client(address)

    def close(self) -> None:
        self._client.close()

    # ---- requests --------------------------------------------------------------------------

    def transact(
        self,
        terms: list[dict[str, Any]],
        operations: list[Operation],
        otherwise: list[bytes],
        deadline_s: float,
        *,
        lease: int = 0,
    ) -> Answer:
        """``operations`` where all ``terms`` hold, else read the keys ``otherwise``.

        Args:
            lease: of what is put; 0: it stays.

        Raises:
            EtcdError: refused; Unavailable: nobody has answered, it may be applied or not.
        """
        found = self.call(
            "kv/txn",
            {
                "compare": terms,
                "success": [_operation(one, lease) for one in operations],
                "failure": [{"request_range": {"key": _text(key)}} for key in otherwise],
            },
            deadline_s,
        )
        pairs = [
            _pair(pair)
            for response in found.get("responses", ())
            for pair in response.get("response_range", {}).get("kvs", ())
        ]
        return Answer(bool(found.get("succeeded")), pairs, _revision(found))

    def get(self, key: bytes, deadline_s: float) -> tuple[Pair | None, int]:
        """The key's value as of now, and the store's revision."""
        found = self.call("kv/range", {"key": _text(key)}, deadline_s)
        pairs = [_pair(pair) for pair in found.get("kvs", ())]
        return (pairs[0] if pairs else None), _revision(found)

    def pages(
        self,
        start: bytes,
        end: bytes,
        patience_s: float,
        *,
        rows: int = _PAGE_ROWS,
        keys_only: bool = False,
    ) -> Iterator[list[Pair]]:
        """All keys from ``start`` up to ``end``, as they were at the first page.

        Raises:
            EtcdError: refused, as where history was compacted meanwhile; Unavailable: a page did
                not come within ``patience_s``.
        """
        revision, more = 0, True
        while more:
            found = self.call(
                "kv/range",
                {
                    "key": _text(start),
                    "range_end": _text(end),
                    "limit": str(rows),
                    "revision": str(revision),
                    "keys_only": keys_only,
                },
                time.monotonic() + patience_s,
            )
            revision = revision or _revision(found)
            pairs = [_pair(pair) for pair in found.get("kvs", ())]
            more = bool(found.get("more")) and bool(pairs)
            if pairs:
                start = pairs[-1].key + b"\0"
            yield pairs

    def grant(self, lease: int, ttl_s: int, deadline_s: float) -> None:
        """A lease with a number that the caller has drawn, so that a repetition makes no second."""
        try:
            self.call("lease/grant", {"TTL": str(ttl_s), "ID": str(lease)}, deadline_s)
        except EtcdError as error:
            if "lease already exists" not in str(error):
                raise

    def keep_alive(self, lease: int, deadline_s: float) -> bool:
        """Renew it; False: it is gone."""
        found = self.call("lease/keepalive", {"ID": str(lease)}, deadline_s)
        return int(found.get("result", {}).get("TTL", "0")) > 0

    def revoke(self, lease: int, deadline_s: float) -> None:
        """End it, and with it the keys that are bound to it."""
        try:
            self.call("lease/revoke", {"ID": str(lease)}, deadline_s)
        except EtcdError as error:
            if error.code != _NOT_FOUND:
                raise

    def compact(self, revision: int, deadline_s: float) -> None:
        """Forget what was there before ``revision`` and is not any more."""
        try:
            self.call("kv/compaction", {"revision": str(revision)}, deadline_s)
        except EtcdError as error:
            if error.code != OUT_OF_RANGE:  # somebody else has
                raise

    def deleted_since(self, key: bytes, revision: int, patience_s: float) -> bool:
        """Watch until the key is deleted, in or after ``revision``: whether it was, in that time.

        False also where the watch cannot go on, as after a compaction: then look at the key. So
        whoever waits longer looks, watches from the revision of that look, and so on.
        """
        import httpx

        deadline_s = time.monotonic() + patience_s
        request = {"create_request": {"key": _text(key), "start_revision": str(revision)}}
        timeout = httpx.Timeout(patience_s, connect=min(_CONNECT_S, patience_s))
        try:
            with self._client.stream(
                "POST",
                f"{self._endpoint()}/v3/watch",
                json=request,
                headers=self._headers(),
                timeout=timeout,
            ) as answer:
                for line in answer.iter_lines():
                    found = json.loads(line).get("result", {})
                    events = found.get("events", ())
                    if any(event.get("type") == "DELETE" for event in events):
                        return True
                    if found.get("canceled") or time.monotonic() > deadline_s:
                        return False
        except (httpx.HTTPError, ValueError):
            self._turn()
        return False

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
                if entered or not self._address.user or not _is_about_token(error):
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
        waited_s = min(left_s, self._patience_s)
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
        if answer.status_code == 200 and isinstance(found, dict) and "error" not in found:
            self._patience_s = _ATTEMPT_S
            return found
        raise _refusal(endpoint, answer.status_code, found)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _endpoint(self) -> str:
        return self._address.endpoints[self._current]

    def _turn(self) -> None:
        self._current = (self._current + 1) % len(self._address.endpoints)
        self._token = ""  # simple tokens are of one member


def created(key: bytes, revision: int) -> dict[str, Any]:
    """A term: the key was created in that revision; 0: it is not there."""
    fields = {"key": _text(key), "target": "CREATE", "result": "EQUAL"}
    return {**fields, "create_revision": str(revision)}


def equals(key: bytes, value: bytes) -> dict[str, Any]:
    """A term: that is the key's value."""
    return {"key": _text(key), "target": "VALUE", "result": "EQUAL", "value": _text(value)}


def _client(address: EtcdAddress) -> httpx.Client:
    try:
        import httpx
    except ImportError as error:
        raise StoreError(
            f"a store on etcd needs httpx, which cannot be imported ({error}). The head does not "
            'start. Install it: pip install "zray[etcd]".'
        ) from error
    import ssl

    verify: ssl.SSLContext | bool = True
    if address.endpoints[0].startswith("https:"):
        try:
            verify = ssl.create_default_context(cafile=address.authority or None)
            if address.certificate:
                verify.load_cert_chain(address.certificate, address.key)
        except OSError as error:
            raise StoreError(
                f"the certificates for etcd cannot be used: {error}. The head does not start. "
                "Check ZRAY_ETCD_CA, ZRAY_ETCD_CERT and ZRAY_ETCD_KEY."
            ) from error
    # Proxies and .netrc of the environment are for the web, not for what the head stands on.
    return httpx.Client(verify=verify, trust_env=False)


def _refusal(endpoint: str, status: int, found: Any) -> EtcdError:
    """What etcd's answer means for the request."""
    fields = found if isinstance(found, dict) else {}
    detail = fields.get("error", "")
    if isinstance(detail, dict):  # of a stream
        fields, detail = detail, detail.get("message", "")
    code = fields.get("code", fields.get("grpc_code", 0))
    code = code if isinstance(code, int) else 0
    text = f"{endpoint} says: {detail or f'HTTP {status}'}"
    if "database space exceeded" in text:
        return NoSpace(text, code)
    if code in (_UNAVAILABLE, _DEADLINE, _EXHAUSTED) or (status >= 500 and not code):
        return Unavailable(text, code)
    return EtcdError(text, code)


def _is_about_token(error: EtcdError) -> bool:
    if error.code == _UNAUTHENTICATED:
        return True
    told = str(error)
    return error.code == _INVALID and ("auth store" in told or "user name is empty" in told)


def _operation(operation: Operation, lease: int) -> dict[str, Any]:
    if isinstance(operation, Delete):
        fields = {"key": _text(operation.start)}
        if operation.end is not None:
            fields["range_end"] = _text(operation.end)
        return {"request_delete_range": fields}
    put: dict[str, Any] = {"key": _text(operation[0]), "value": _text(operation[1])}
    if lease:
        put["lease"] = str(lease)
    return {"request_put": put}


def _pair(found: dict[str, Any]) -> Pair:
    created_in = int(found.get("create_revision", "0"))
    return Pair(_bytes(found.get("key", "")), _bytes(found.get("value", "")), created_in)


def _revision(found: dict[str, Any]) -> int:
    return int(found.get("header", {}).get("revision", "0"))


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
