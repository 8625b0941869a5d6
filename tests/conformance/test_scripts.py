"""Contracts told by whole programs (``scripts``), in the manner of Ray's documentation."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.conftest import PYTHON

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_prints_what_its_docstring_says(script) -> None:
    """What stands below the first paragraph of its docstring."""
    expected = ast.get_docstring(ast.parse(script.read_text())).partition("\n\n")[2]
    done = subprocess.run(
        [*PYTHON, str(script)], capture_output=True, text=True, timeout=100, env={**os.environ}
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("(")]
    assert "\n".join(lines[-len(expected.splitlines()) :]) == expected, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert sys.executable in PYTHON
