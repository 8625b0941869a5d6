"""Owns the cluster's key, all that derives from it, and files that only their owner may read.

Must never show a secret: not in a repr, a message, a log line or a file with other modes than 0600.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import secrets
import shlex
import stat
from pathlib import Path
from typing import Final

import msgspec
import zmq
from zmq.utils import z85

from zray.errors import KeyFileError

_KEY_BYTES: Final = 32
_CLUSTER_ID_BYTES: Final = 16
_PREFIX: Final = "zray_cluster_"  # lets secret scanners recognise a leaked key
_SALT: Final = b"zray cluster key 1"
_SECRET_FILE_BYTES_MAX: Final = 64 << 10


class CurvePair(msgspec.Struct, frozen=True):
    """A CURVE key pair, both halves as 40 bytes of Z85 text, as pyzmq takes them."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"CurvePair(public={self.public!r})"


class ClusterKey:
    """The 32 random bytes that make a cluster; every CURVE key of it derives from them.

    Whoever holds them can be the head and any client, so they stay on the head's machine: a
    client gets its own pair through the connection file.

    Raises:
        ValueError: ``root`` has another length.
    """

    __slots__ = ("_seed",)

    def __init__(self, root: bytes) -> None:
        if len(root) != _KEY_BYTES:
            raise ValueError(f"a cluster key has {_KEY_BYTES} bytes, not {len(root)}")
        self._seed = hmac.digest(_SALT, root, "sha256")  # HKDF-Extract, RFC 5869 2.2

    @classmethod
    def create(cls) -> ClusterKey:
        """Return a new random key; nothing is written."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ClusterKey:
        """Read the key from ``path``.

        Raises:
            KeyFileError: no such file, a symbolic link, another owner's, readable by others,
                or malformed.
        """
        text = read_secret_file(path).decode("ascii", "replace").strip()
        try:
            return cls(bytes.fromhex(text.removeprefix(_PREFIX)))
        except ValueError:
            raise KeyFileError(
                f"{path} is not a cluster key (expected {_PREFIX} and {2 * _KEY_BYTES} hex digits);"
                " restore it from a backup, or remove it and let the head make a new one, after"
                " which every worker and driver needs the new connection file"
            ) from None

    @classmethod
    def load_or_create(cls, path: str | os.PathLike[str]) -> ClusterKey:
        """Read the key from ``path``; where nothing is there, make one and write it (0600).

        Of several processes that do so at once, one writes and all read the same key.

        Raises:
            KeyFileError: as :meth:`load`; or the file cannot be written.
        """
        if not os.path.lexists(path):
            root = secrets.token_bytes(_KEY_BYTES)
            write_secret_file(path, f"{_PREFIX}{root.hex()}\n".encode(), replace=False)
        return cls.load(path)

    @property
    def cluster_id(self) -> bytes:
        """The 16 bytes that name the cluster; not a secret."""
        return self._derive(b"cluster-id")[:_CLUSTER_ID_BYTES]

    @property
    def server(self) -> CurvePair:
        """The head's pair."""
        return self._pair("server")

    def client(self, role: str = "member", generation: int = 0) -> CurvePair:
        """The pair of all clients of ``role``; a new ``generation`` makes the old ones void."""
        return self._pair(f"client/{role}/{generation}")

    def _pair(self, label: str) -> CurvePair:
        secret = z85.encode(self._derive(label.encode()))
        return CurvePair(zmq.curve_public(secret), secret)

    def _derive(self, label: bytes) -> bytes:
        # HKDF-Expand, RFC 5869 2.3; one block is enough, as nothing derived is over 32 bytes.
        return hmac.digest(self._seed, label + b"\x01", "sha256")

    def __repr__(self) -> str:
        return f"<ClusterKey of cluster {self.cluster_id.hex()}>"


def fingerprint(public: bytes) -> str:
    """Name a public key (40 bytes Z85) in a message: the same 12 hex digits on both sides."""
    return hashlib.sha256(public).hexdigest()[:12]


def secret_directory(path: str | os.PathLike[str]) -> Path:
    """Make ``path`` a directory for secrets (0700 where it is new) and return it.

    Raises:
        KeyFileError: it cannot be made, is not a directory or another user's, or others may
            write in it.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise KeyFileError(
            f"cannot make the directory {directory}: {error.strerror}; set ZRAY_HOME to a"
            " directory that this user can write"
        ) from error
    _check_owner(status, directory)
    if status.st_mode & 0o022:
        raise KeyFileError(
            f"{directory} is writable by other users, who could replace the keys in it;"
            f" run: chmod 700 {shlex.quote(str(directory))}"
        )
    return directory


def read_secret_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file that nobody else can read.

    Raises:
        KeyFileError: it cannot be read; is a link, no plain file, another user's or too long; or
            others may read it (the message has the chmod to run).
    """
    try:
        # O_NONBLOCK: a fifo put there must not hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise KeyFileError(
                f"{path} is a symbolic link; keys are read from plain files only, so that nobody"
                " can point them elsewhere; give the path of the file itself"
            ) from None
        raise KeyFileError(f"cannot read {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not a plain file; give the path of the file itself")
        _check_owner(status, path)
        if status.st_mode & 0o077:
            raise KeyFileError(
                f"{path} holds a secret and other users may access it (mode"
                f" {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {shlex.quote(str(path))}"
            )
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_SECRET_FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(content) > _SECRET_FILE_BYTES_MAX:
        raise KeyFileError(f"{path} is longer than any key file; is it the right path?")
    return content


def write_secret_file(
    path: str | os.PathLike[str], content: bytes, *, replace: bool = True
) -> None:
    """Write ``content`` with mode 0600; a reader sees the old file or the whole new one.

    With ``replace`` false an existing file stays as it is, whoever wrote it first.

    Raises:
        KeyFileError: the file cannot be written.
    """
    target = Path(path)
    secret_directory(target.parent)
    draft = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            if replace:
                os.replace(draft, target)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(draft, target)  # unlike a rename, fails where the name is taken
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise KeyFileError(f"cannot write {target}: {error.strerror}") from error


def _check_owner(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if status.st_uid != os.geteuid():
        raise KeyFileError(
            f"{path} belongs to user id {status.st_uid}, and this process runs as user id"
            f" {os.geteuid()}; run as that user, or set ZRAY_HOME to a directory of this one"
        )
