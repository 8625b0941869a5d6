"""Rules on the text of the sources: documented, plain ASCII, nothing left half said."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VAGUE = {"common.py", "helpers.py", "manager.py", "misc.py", "mixins.py", "utils.py"}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
TESTS = ROOT / "tests"
FILE_BYTES_MAX = 200_000
# Every public name of these has a docstring: users read them.
PUBLIC = ("zray.api", "zray.compat", "zray.errors", "zray.exceptions", "zray.testing", "zray.util")

# In zray/limits for a part that is still to come.
NOT_USED_YET: set[str] = set()


def sources() -> list[Path]:
    folders = ("bin", "examples", "tests", "zray", ".ci")
    return [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and not {"__pycache__", "node_modules"} & {*path.parts}
    ]


def test_sources_are_ascii() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()!r}"
        for path in sources()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if not line.isascii()
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_marked_unfinished() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_page_or_source_has_both_sides_of_a_merge() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (*sources(), *pages)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if line.startswith(("<" * 7 + " ", ">" * 7 + " "))
    ]
    assert not wrong, "\n".join(wrong)


def test_files_are_named_after_what_they_own() -> None:
    assert not [path for path in sources() if path.name in VAGUE]


def test_no_large_file() -> None:
    assert not [path for path in sources() if path.stat().st_size > FILE_BYTES_MAX]


def test_every_module_says_what_it_owns(tree: Any) -> None:
    silent = [m for m in tree.modules.values() if m.tree.body and not ast.get_docstring(m.tree)]
    assert not silent


def test_public_names_are_documented(tree: Any) -> None:
    wrong = []
    for module in [*tree.under(*PUBLIC), tree.modules.get("zray")]:
        for node in public_definitions(module.tree.body) if module else []:
            if not ast.get_docstring(node):
                wrong.append(f"{module}:{node.lineno}: {node.name}")
    assert not wrong, "\n".join(wrong)


def public_definitions(body: list[ast.stmt]) -> list[Any]:
    """Public classes and functions, and the public methods of public classes.

    An overload has the docstring of what it overloads, and a setter that of its getter.
    """
    found: list[Any] = []
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [node, *public_definitions(node.body)]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
            if not node.name.startswith("_") and not decorators & {"overload", "setter"}:
                found.append(node)
    return found


def test_every_limit_is_used(tree: Any) -> None:
    defined = {
        target.id
        for module in tree.under("zray.limits")
        for node in module.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    used = {
        name
        for module in tree.modules.values()
        if not module.name.startswith("zray.limits")
        for node in ast.walk(module.tree)
        for name in names_in(node)
    }
    unused = defined - used - NOT_USED_YET
    assert not unused, f"in zray/limits and used nowhere: {sorted(unused)}"
    assert not NOT_USED_YET - defined, "take it off NOT_USED_YET"


def names_in(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names]
    return []


SKIPS = re.compile(r"mark\.(skip|skipif|xfail)\b|importorskip|pytest\.(skip|xfail)\(")


def test_no_test_passes_by_skipping() -> None:
    """What is missing is installed by `.ci/system-packages`, or the test fails and says so."""
    wrong = [
        f"{path.relative_to(TESTS)}:{number}: {line.strip()}"
        for path in sorted(TESTS.rglob("*.py"))
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if SKIPS.search(line)
    ]
    assert not wrong, "\n".join(wrong)
