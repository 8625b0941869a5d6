"""This tree as a wheel, and later versions made of that, each where processes of it find it.

A later one has a higher minor of the protocol, fields appended to what all processes say and to
rows of the store, and a verb of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from zray._version import __version__
from zray.protocol import messages as m
from zray.protocol.versions import TAG_OF_MINOR

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
    """This tree: a wheel of it is built without a network, and unpacked in the folder."""
    sources, into = folder / "sources", folder / "present"
    sources.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, sources / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, sources)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=sources, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (sources / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)
    return Version(__version__, m.PROTOCOL_MINOR, into)


def later(version: Version, folder: Path, minors: int) -> Version:
    """So many minors later than that of ``present``, with what `APPENDED` and `VERB` add."""
    shutil.copytree(version.path, folder, ignore=shutil.ignore_patterns("__pycache__"))
    name, minor = f"{version.name}.post{minors}", version.minor + minors
    tags = f"TAG_OF_MINOR: Final = {TAG_OF_MINOR}".removesuffix(")")
    changes = [
        ("_version.py", f'__version__ = "{version.name}"', f'__version__ = "{name}"'),
        (
            "protocol/parts.py",
            f"\nPROTOCOL_MINOR = {version.minor} ",
            f"\nPROTOCOL_MINOR = {minor} ",
        ),
        ("protocol/versions.py", tags, f"{tags}, {', '.join([str(LATER_TAG)] * minors)}"),
        *APPENDED,
        *VERB,
    ]
    for place, old, new in changes:
        path = folder / "zray" / place
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {place}"
        path.write_text(text.replace(old, new))
    return Version(name, minor, folder)
