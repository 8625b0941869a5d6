"""etcd's JSON: what requests and answers are made of, and what a refusal means. Does no I/O.

https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/. 64-bit integers are texts there, and fields
that are zero, false or empty are left out.
"""

from __future__ import annotations

import base64
from typing import Any, Final, NamedTuple

from zray.store.etcd_layout import Delete, Operation

# Codes of gRPC: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
_INVALID, _DEADLINE, _EXHAUSTED = 3, 4, 8
_UNAVAILABLE, _UNAUTHENTICATED = 14, 16
NOT_FOUND: Final = 5  # as a lease that has ended
OUT_OF_RANGE: Final = 11  # what was asked for was compacted


class Pair(NamedTuple):
    """A key with its value; the revisions in which it was made and last written, and its lease."""

    key: bytes
    value: bytes
    created: int
    changed: int = 0
    lease: int = 0  # 0: none


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


def created(key: bytes, revision: int) -> dict[str, Any]:
    """A term: the key was created in that revision; 0: it is not there."""
    fields = {"key": encoded(key), "target": "CREATE", "result": "EQUAL"}
    return {**fields, "create_revision": str(revision)}


def unchanged(key: bytes, revision: int) -> dict[str, Any]:
    """A term: the key was last written in that revision."""
    fields = {"key": encoded(key), "target": "MOD", "result": "EQUAL"}
    return {**fields, "mod_revision": str(revision)}


def equals(key: bytes, value: bytes) -> dict[str, Any]:
    """A term: that is the key's value."""
    return {"key": encoded(key), "target": "VALUE", "result": "EQUAL", "value": encoded(value)}


def accepted(endpoint: str, status: int, found: Any) -> dict[str, Any]:
    """An answer's fields.

    Raises:
        EtcdError: it is a refusal.
    """
    if status == 200 and isinstance(found, dict) and "error" not in found:
        return found
    raise refusal(endpoint, status, found)


def refusal(endpoint: str, status: int, found: Any) -> EtcdError:
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


def is_about_token(error: EtcdError) -> bool:
    """Whether it is over once the user has entered again."""
    if error.code == _UNAUTHENTICATED:
        return True
    told = str(error)
    return error.code == _INVALID and ("auth store" in told or "user name is empty" in told)


def operation_of(operation: Operation, lease: int = 0) -> dict[str, Any]:
    """Of a transaction. ``lease``: of what is put; 0: it stays."""
    if isinstance(operation, Delete):
        fields = {"key": encoded(operation.start)}
        if operation.end is not None:
            fields["range_end"] = encoded(operation.end)
        return {"request_delete_range": fields}
    put: dict[str, Any] = {"key": encoded(operation[0]), "value": encoded(operation[1])}
    if lease:
        put["lease"] = str(lease)
    return {"request_put": put}


def pair(found: dict[str, Any]) -> Pair:
    """Of an answer's fields."""
    numbers = (int(found.get(name, "0")) for name in ("create_revision", "mod_revision", "lease"))
    return Pair(decoded(found.get("key", "")), decoded(found.get("value", "")), *numbers)


def revision_of(found: dict[str, Any]) -> int:
    """The store's, when it answered."""
    return int(found.get("header", {}).get("revision", "0"))


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def decoded(text: str) -> bytes:
    return base64.b64decode(text)
