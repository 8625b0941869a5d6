"""``zray debug dump``: what a fault report needs, in one file, without secrets.

Must never write a text into it that has not been through `redactor`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from zray import limits
from zray._version import __version__
from zray.cli import reporting
from zray.cli.logs import everywhere
from zray.cli.reporting import Failed
from zray.core.causes import plain
from zray.errors import ZrayError
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.runtime.connection import ConnectionInfo
from zray.util.state.cluster import describe

TAIL_BYTES = 64 << 10  # of each log
LOGS_MAX = 40  # of each node, those that have changed last
NODES_MAX = 64  # whose logs and stacks are asked for
LIBRARIES = ("pyzmq", "msgspec", "msgpack", "cloudpickle", "psutil", "click", "py-spy")
HIDDEN = "(hidden)"
_SECRET_NAME = re.compile(
    r"secret|token|passw|passphrase|credential|api_?key|access_?key|private", re.I
)
_PATTERNS = (
    # name=value, "name": "value" and the like, in logs and command lines
    re.compile(
        r"""(?ix)((?:[\w-]*(?:secret|token|passw(?:or)?d|passphrase|credential|api[_-]?key
        |access[_-]?key|authorization)[\w-]*)["']?\s*[=:]\s*(?:bearer\s+)?)("[^"]*"|'[^']*'|[^\s,;}]+)"""
    ),
    re.compile(r"(://[^/\s:@]*:)([^/\s@]+)(?=@)"),  # a password in a URL
    re.compile(r"(?i)(--?\w*(?:secret|token|password|key)\w*\s+)(\S+)"),
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)(.*?)(?=-----END|\Z)", re.DOTALL),
    re.compile(r"()(\b(?:AKIA|ASIA)[A-Z0-9]{16}\b)"),
)

Redact = Callable[[str], str]


def redactor(info: ConnectionInfo, environment: Iterable[tuple[str, str]]) -> Redact:
    """Hides the cluster's keys, values of variables named as secrets, and what looks like one."""
    keys = (info.server_public, info.client_public, info.client_secret)
    known = {key.decode("ascii", "replace") for key in keys}
    known |= {value for name, value in environment if _SECRET_NAME.search(name)}
    literal = sorted((one for one in known if len(one) >= 6), key=len, reverse=True)

    def redact(text: str) -> str:
        for one in literal:
            text = text.replace(one, HIDDEN)
        for pattern in _PATTERNS:
            text = pattern.sub(lambda found: found[1] + HIDDEN, text)
        return text

    return redact


def dump(addresses: list[str], output: Path | None, *, as_json: bool) -> int:
    """Write the file; returns the exit code."""
    path = output or Path(time.strftime("zray-dump-%Y%m%d-%H%M%S.tar.gz"))
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            if path.exists():
                raise FileExistsError(f"{path} is there already; say another --output")
            redact = redactor(operator.info, os.environ.items())
            collected = _Collected(redact)
            _collect(operator, collected)
            collected.write(path)
            size = path.stat().st_size
            if as_json:
                told = {"output": str(path), "bytes": size, "files": [*collected.files]}
                reporting.show({**told, "missing": collected.missing})
            else:
                print(f"Wrote {path} ({size:,} bytes, {len(collected.files)} files)")
                for text in collected.missing:
                    print(f"zray: {plain(text)}", file=sys.stderr)
    except Failed:
        return 1
    return 0


class _Collected:
    """The files of a dump, and what is not in it. All text is redacted as it comes in."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self.files: dict[str, bytes] = {}
        self.missing: list[str] = []

    def add(self, name: str, text: str) -> None:
        """Take a file in."""
        self.files[name] = self._redact(text).encode("utf-8", "backslashreplace")

    def lacks(self, text: str) -> None:
        """Something could not be had."""
        self.missing.append(self._redact(text))

    def write(self, path: Path) -> None:
        """As a compressed archive, for this user's eyes only."""
        about = "\n".join([_ABOUT, *(f"- missing: {text}" for text in self.missing)])
        self.files["README.txt"] = about.encode("utf-8", "backslashreplace")
        part = path.with_name(f"{path.name}.part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
                for name, data in self.files.items():
                    entry = tarfile.TarInfo(f"zray-dump/{name}")
                    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                    archive.addfile(entry, io.BytesIO(data))
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)


_ABOUT = f"""What a zray cluster looked like when somebody called zray debug dump.

- status.json: nodes, jobs, actors, what waits and why, the last notices, counters
- versions.json: of zray, Python and libraries where the command ran
- head/, nodes/NAME/: stack.txt (where the daemon was), logs (the last {TAIL_BYTES >> 10} KiB each)

Keys of the cluster, values of environment variables and what looks like a secret were left out, or
replaced by "{HIDDEN}". Logs have what tasks have printed: look through them first.
"""


def _collect(operator: Operator, into: _Collected) -> None:
    status = operator.status()
    into.add("status.json", json.dumps(describe(status, operator.info, operator.address), indent=2))
    into.add("versions.json", json.dumps(_versions(), indent=2))
    nodes = status.nodes[:NODES_MAX]
    if len(status.nodes) > NODES_MAX:
        into.lacks(f"logs and stacks of {len(status.nodes) - NODES_MAX} nodes")
    folders = {one.node_id: f"nodes/{_file_name(one.info.name, one.node_id)}" for one in nodes}
    _stacks(operator, folders, into)
    for node, told in everywhere(operator):
        folder = folders.get(node.node_id)
        if folder is None:
            continue
        if told is None:
            into.lacks(f"the logs of node {node.info.name}: it has not answered")
            continue
        for one in [log for log in told.files if log.size][-LOGS_MAX:]:
            try:
                low = max(0, one.size - TAIL_BYTES)
                part = operator.read_log(node.node_id, one.name, one.file_id, low, TAIL_BYTES)
                text = part.data.decode("utf-8", "replace")
                place = "head" if one.name == "head" else folder
                into.add(f"{place}/{one.name.removesuffix('.log')}.log", text)
            except ZrayError as error:
                into.lacks(f"the log {one.name} of node {node.info.name}: {error}")


def _stacks(operator: Operator, folders: dict[bytes, str], into: _Collected) -> None:
    source = operator.process_id
    asked: list[m.Message] = [m.Examine(0, source, node_id) for node_id in folders]
    names = [*folders.values()]
    with contextlib.suppress(ZrayError):
        head = operator.locate("head", m.THE_HEAD)
        if head.node_id:
            asked.append(m.Examine(0, source, head.node_id, of_head=True))
            names.append("head")
    timeout_s = limits.EXAMINE_S + limits.QUESTION_S
    for name, found in zip(names, operator.ask_all(asked, timeout_s), strict=True):
        if isinstance(found, m.Examined) and not found.code:
            into.add(f"{name}/stack.txt", found.data.decode("utf-8", "replace"))
        else:
            why = getattr(found, "text", "") or "no answer"
            into.lacks(f"where the daemon of {name} was: {why}")


def _file_name(name: str, node_id: bytes) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:64]}-{node_id.hex()[-8:]}"


def _versions() -> dict[str, str]:
    found = {"zray": __version__, "python": sys.version, "platform": platform.platform()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
