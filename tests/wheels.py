"""This tree as wheels of several versions, each unpacked where processes of it find it.

``later`` makes the version after next, and so on, out of it: a higher minor of the protocol, fields
appended to what all processes say and to rows of the store, and a verb of its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from zray._version import __version__
from zray.protocol import messages as m

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("zray", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")
LATER_TAG = max(int(kind.__struct_config__.tag) for kind in m.ALL) + 1

Change = tuple[str, str, str]  # file below zray/, what is there once, and what is there instead

APPENDED: list[Change] = [
    (
        "protocol/messages.py",
        "    minor: Count = 0\n\n\nclass Welcome",
        '    minor: Count = 0\n    later: Name = "of HELLO"\n\n\nclass Welcome',
    ),
    (
        "protocol/messages.py",
        '    trouble: Text = ""\n\n\nclass Pong',
        '    trouble: Text = ""\n    later: Name = "of PING"\n\n\nclass Pong',
    ),
    (
        "protocol/parts.py",
        "    offers: list[Name] = []\n\n\nclass LogSettings",
        '    offers: list[Name] = []\n    later: Name = "of a node"\n\n\nclass LogSettings',
    ),
    (
        "core/head/members.py",
        "    drain_s: float = 0.0\n\n    def dead",
        '    drain_s: float = 0.0\n    later: str = "of a row"\n\n    def dead',
    ),
]
# A verb that the head tells each node, and each node the head: who is not told of it hears nothing.
VERB: list[Change] = [
    (
        "protocol/head_messages.py",
        "\nHEAD_MESSAGES: tuple[type[Message], ...] = (",
        f"\nclass Later(Message, tag={LATER_TAG}):\n    text: Text\n\n\n"
        "HEAD_MESSAGES: tuple[type[Message], ...] = (Later, ",
    ),
    (
        "core/head/sessions.py",
        "        self._routed.send(route, answer)\n",
        "        self._routed.send(route, answer)\n"
        '        self._outbox.send(hello.process_id, m.Later(0, "to a member"))\n',
    ),
    (
        "core/head/sessions.py",
        "            m.Shutdown: self.on_shutdown,\n",
        "            m.Shutdown: self.on_shutdown,\n"
        '            m.Later: lambda *heard: print("heard LATER", flush=True),\n',
    ),
    (
        "core/head/roles.py",
        "NODE_VERBS = CLIENT_VERBS | {",
        "NODE_VERBS = CLIENT_VERBS | {m.Later,",
    ),
    (
        "core/raylet/head_session.py",
        '``handlers`` take what the head will say."""\n',
        '``handlers`` take what the head will say."""\n'
        '        heard = lambda *_: print("heard LATER", flush=True)\n'
        "        handlers = {**handlers, m.Later: heard}\n",
    ),
    (
        "core/raylet/head_session.py",
        "        self._welcomed()\n",
        '        self._welcomed()\n        self.tell(m.Later(0, "to the head"))\n',
    ),
]


class Version(NamedTuple):
    """One version: what processes import it from."""

    name: str
    minor: int
    path: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a process of it."""
        return {"PYTHONPATH": str(self.path), "PYTHONSAFEPATH": "1"}

    def __str__(self) -> str:
        return f"zray {self.name} (protocol {m.PROTOCOL_VERSION}.{self.minor})"


def present(folder: Path) -> Version:
    """This tree."""
    sources = _copy(folder)
    return Version(__version__, m.PROTOCOL_MINOR, _unpacked(sources, folder / "present"))


def later(folder: Path, minors: int) -> Version:
    """So many minors later; from the first on with what `APPENDED` and `VERB` add."""
    sources = _copy(folder)
    name, minor = f"{__version__}.post{minors}", m.PROTOCOL_MINOR + minors
    tags = ", ".join([str(LATER_TAG)] * minors)
    changes = [
        ("_version.py", f'__version__ = "{__version__}"', f'__version__ = "{name}"'),
        (
            "protocol/parts.py",
            f"\nPROTOCOL_MINOR = {m.PROTOCOL_MINOR} ",
            f"\nPROTOCOL_MINOR = {minor} ",
        ),
        *APPENDED,
        *VERB,
    ]
    for place, old, new in changes:
        _change(sources / "zray" / place, old, new)
    versions = sources / "zray" / "protocol" / "versions.py"
    text, found = re.subn(
        r"(?m)^(TAG_OF_MINOR: Final = \([\d, ]*?),?\)", rf"\1, {tags})", versions.read_text()
    )
    assert found == 1, "TAG_OF_MINOR is written otherwise"
    versions.write_text(text)
    return Version(name, minor, _unpacked(sources, folder / f"later-{minors}"))


def _copy(folder: Path) -> Path:
    sources = folder / "sources"
    if sources.exists():
        shutil.rmtree(sources)
    sources.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, sources)
    return sources


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def _unpacked(sources: Path, into: Path) -> Path:
    """Build a wheel of the sources, without a network, and unpack it."""
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=sources, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (sources / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)
    return into
