"""The classic script, on a local cluster that it starts itself."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "hello_cluster.py"


def test_prints_the_doubled_numbers(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = run("hello_cluster.py")

    assert (ended.returncode, ended.stdout) == (0, "[0, 2, 4, 6, 8]\n"), ended.stderr


def test_differs_from_a_ray_script_by_its_import_only() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))

    imports = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ray"
    }

    assert imports == ["import zray as ray"]
    assert used <= {"init", "remote", "get"}
