"""A head under ``zray-head --supervise``: how its parent begins, and the entry of its own process.

``python -m zray.cli.supervised OPTIONS READY_FD LOG PORT``: JSON, a descriptor or -1, a path or
"", and where it has listened before or 0.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from zray.cli import daemon
from zray.core.head import supervision
from zray.errors import (
    DataDirectoryLockedError,
    KeyFileError,
    StartError,
    StoreRefusedError,
    ZrayError,
)
from zray.runtime import service

if TYPE_CHECKING:
    from zray.nodes.options import HeadOptions
    from zray.runtime.connection import ConnectionInfo

PROGRAM = "zray-head"
LOCK_NAME = "supervisor.lock"
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # of a disk: another start may find it well
LOOK_S = 0.2  # longer than somebody else only looks whether it is taken


# ---- the parent ----------------------------------------------------------------------------


def begin(options: HeadOptions, watchdog_s: float, ready_fd: int | None) -> NoReturn:
    """This process becomes the parent of heads with these options.

    Raises:
        DataDirectoryLockedError: there is such a parent already. KeyFileError, OSError: the data
            directory cannot be used.
    """
    from zray.nodes.options import encode_head
    from zray.runtime import log_files

    for directory in _directories(options):
        os.set_inheritable(_lock(directory), True)
    if ready_fd is not None:
        os.set_inheritable(ready_fd, True)
    log = str(log_files.declared or "")
    fd = str(ready_fd) if ready_fd is not None else ""
    given = [str(watchdog_s), log, fd, encode_head(options)]
    script = str(Path(__file__).with_name("supervisor.py"))
    # Another program: what this one has imported is not there for as long as the head.
    os.execv(sys.executable, [sys.executable, "-I", "-S", script, *given])


def refuse_another(options: HeadOptions) -> None:
    """A head that is not supervised is not started between two lives of one that is.

    Raises:
        DataDirectoryLockedError: as of `begin`.
    """
    for directory in _directories(options):
        path = directory / LOCK_NAME
        if not path.exists():
            continue
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(directory, fd) from None
        finally:
            os.close(fd)


def _directories(options: HeadOptions) -> list[Path]:
    from zray.runtime import connection
    from zray.runtime.keys import secret_directory

    own = connection.cluster_directory(options.name)
    data = secret_directory(options.data_directory or own)
    return [own] if data.samefile(own) else [own, data]


def _lock(directory: Path) -> int:
    """Taken for as long as somebody has the descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(directory / LOCK_NAME, flags, 0o600)
    until = time.monotonic() + LOOK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise _in_use(directory, fd) from None
            time.sleep(0.01)
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps({"pid": os.getpid()}).encode(), 0)
    return fd


def _in_use(directory: Path, fd: int) -> DataDirectoryLockedError:
    try:
        who = f"pid {int(json.loads(os.pread(fd, 4096, 0))['pid'])}"
    except (ValueError, LookupError, TypeError):
        who = f"`fuser {directory / LOCK_NAME}` names the process that"
    return DataDirectoryLockedError(
        f"the data directory {directory} is in use by a supervised head: {who} starts it again "
        "whenever it ends. Two heads on one directory would overwrite each other, so this one does "
        "not start. Stop that cluster with `zray stop`, or give this one another --name."
    )


# ---- the head ------------------------------------------------------------------------------


class Starter:
    """Whoever has started the head, or watches over it, and waits to be told how it is.

    ``ready_fd``: where the one waits; None: nobody does.
    """

    def __init__(self, host: str, ready_fd: int | None) -> None:
        self._host = host
        self._ready_fd = ready_fd

    def ready(self, info: ConnectionInfo) -> None:
        """It leads."""
        from zray.nodes.head.addresses import ready_text

        self._tell(
            info, ready_text(info, self._host), f"cluster {info.name} at {info.addresses[0]}"
        )

    def standby(self, info: ConnectionInfo, leads: str) -> None:
        """Another leads."""
        from zray.nodes.head.addresses import standby_text

        self._tell(info, standby_text(info, leads), f"stands by; leader: {leads}")

    def _tell(self, info: ConnectionInfo, text: str, status: str) -> None:
        from zray.runtime.connection import parse_address

        daemon.ready(text, self._ready_fd)
        port = parse_address(info.addresses[0])[1]
        service.tell(X_ZRAY_PORT=port, STATUS=status, READY=1)


def exit_status(error: Exception) -> int:
    """Of a head that this has ended: whether it is of any use to start it again."""
    final = (StoreRefusedError, KeyFileError, StartError, ValueError)
    passing = isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING
    return supervision.FINAL if isinstance(error, final) and not passing else 1


def main() -> None:
    """Entry of the supervised head's process."""
    service.declare()
    from zray.nodes.head.head import serve
    from zray.nodes.options import decode_head
    from zray.runtime import log_files
    from zray.runtime.linux.processes import set_process_name

    text, ready_text, log, port = sys.argv[1:]
    ready_fd = int(ready_text) if int(ready_text) >= 0 else None
    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)
    options = decode_head(text)
    if log:
        log_files.declared = Path(log)
    else:
        daemon.hangup_is_stop()
    if not options.port:
        options = options._replace(port=int(port))
    set_process_name(PROGRAM)
    try:
        starter = Starter(options.host, ready_fd)
        serve(options, starter.ready, on_standby=starter.standby)
    except (ZrayError, ValueError, OSError) as error:
        daemon.fail(PROGRAM, error, ready_fd, exit_status(error))


if __name__ == "__main__":
    main()
