"""The census: right figures for files of every kind, and the same table with and without a cluster.

It must never compare the two runs alone: both could be wrong together.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PARSABLE: dict[str, bytes] = {
    "app/core.py": (
        b"import os, os.path\n"
        b"from os import sep\n"
        b"from . import sibling\n"
        b"import json as j\n"
        b"\n"
        b"class Shape:\n"
        b"    def area(self):\n"
        b"        def half(x):\n"
        b"            return x / 2\n"
        b"        return half(2)\n"
        b"\n"
        b"    async def fetch(self):\n"
        b"        pass\n"
    ),
    "app/latin.py": b"# -*- coding: latin-1 -*-\nimport os\nname = '\xe9'\n",
    "bom.py": b"\xef\xbb\xbfimport os\n",
    "crlf.py": b"import re\r\nx = 1\r\n",
    "empty.py": b"",
    "form_feed.py": b"x = 1\n\x0cy = 2\n",
    "no_newline.py": b"x = 1",
    "warns.py": b"pattern = '\\d'\n",
}
UNPARSABLE: dict[str, bytes] = {
    "bad/deep.py": b"x = " + b"-" * 100_000 + b"1\n",
    "bad/late_encoding.py": b"x = 1\n" * 10 + b"y = '\xff'\n",
    "bad/not_utf8.py": b"x = '\xff'\n",
    "bad/nul.py": b"x = 1\0\n",
    "bad/syntax.py": b"def broken(:\n",
    "bad/unknown_codec.py": b"# coding: klingon\nx = 1\n",
}
LEFT_OUT: dict[str, bytes] = {
    ".venv/hidden.py": b"x = 1\n",
    "lib/site-packages/installed.py": b"x = 1\n",
    "notes.txt": b"import os\n",
}
TABLE = """\
Python code under {tree}
  files                 15
  unparsable             6
  lines                 28
  functions              4
  classes                1
  longest function: longest, 5 lines, in caf\\xe9.py
  most-used imports, and the files that use them:
    os                           3
    json                         1
    re                           1
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with a file of every kind that a census of real code meets."""
    root = tmp_path / "tree"
    for name, source in {**PARSABLE, **UNPARSABLE, **LEFT_OUT}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    not_utf8 = os.path.join(os.fsencode(root), b"caf\xe9.py")
    with open(not_utf8, "wb") as file:
        file.write(b"def longest():\n    1\n    2\n    3\n    4\n")
    (root / "dangling.py").symlink_to("nowhere")
    (root / "folder.py").mkdir()
    os.mkfifo(root / "pipe.py")
    return root


def test_serial_counts_files_of_every_kind(run: Run, tree: Path) -> None:
    ended = run("code_census.py", tree, "--serial")

    assert (ended.returncode, ended.stdout) == (0, TABLE.format(tree=tree)), ended.stderr
    assert "Warning" not in ended.stderr


def test_cluster_counts_files_of_every_kind(run: Run, tree: Path) -> None:
    ended = run("code_census.py", tree)

    assert (ended.returncode, ended.stdout) == (0, TABLE.format(tree=tree)), ended.stderr
    assert "100 %  15 files, 28 lines, 4 functions\n" in ended.stderr
    assert "Warning" not in ended.stderr


@pytest.mark.slow_limit(90)
@pytest.mark.parametrize("limit", [1, 16, 200])
def test_cluster_prints_what_serial_prints(run: Run, limit: int) -> None:
    """One file needs no merge, 16 need one, 200 a tree of them."""
    on_cluster = run("code_census.py", "--limit", str(limit))
    serial = run("code_census.py", "--limit", str(limit), "--serial")

    assert (serial.returncode, on_cluster.returncode) == (0, 0), on_cluster.stderr
    assert on_cluster.stdout == serial.stdout
    assert f"files{limit:>19,}\n" in serial.stdout


def test_the_actor_tells_the_totals_while_tasks_run(run: Run) -> None:
    ended = run("code_census.py", "--limit", "300")

    assert ended.returncode == 0, ended.stderr
    told = re.findall(
        r"^ *(\d+) %  ([\d,]+) files, ([\d,]+) lines, ([\d,]+) functions$",
        ended.stderr,
        re.MULTILINE,
    )
    percents, *columns = zip(
        *([int(n.replace(",", "")) for n in line] for line in told), strict=True
    )
    for column in (percents, *columns):
        assert list(column) == sorted(column)
    assert percents[-1] == 100
    assert any(0 < files < 300 for files in columns[0])
    for name, column in zip(("files", "lines", "functions"), columns, strict=True):
        assert f"  {name:<12}{column[-1]:>12,}\n" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "no Python files under"),
        (["--limit", "0"], "--limit must be at least 1"),
    ],
)
def test_bad_arguments_are_explained(run: Run, arguments: list[str], complaint: str) -> None:
    ended = run("code_census.py", *arguments)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr
