"""The source tree as the tidy tests see it: parsed once, never imported."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


@dataclass(frozen=True)
class Import:
    """One import of ``name``: a dotted module, or an object of one."""

    name: str
    line: int
    typing_only: bool  # under ``if TYPE_CHECKING:``
    at_module_level: bool


class Module:
    """One source file; ``name`` is its dotted name as it is imported."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)

    def __repr__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    @cached_property
    def imports(self) -> list[Import]:
        return list(self._imports(self.tree.body, False, True))

    def _imports(
        self, body: list[ast.stmt], typing_only: bool, at_module_level: bool
    ) -> Iterator[Import]:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name in self._names(node):
                    yield Import(name, node.lineno, typing_only, at_module_level)
                continue
            only = typing_only or (
                isinstance(node, ast.If)
                and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
            )
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for field in ("body", "handlers", "cases", "orelse", "finalbody"):
                # The else branch of TYPE_CHECKING is what runs.
                runs = typing_only if field == "orelse" else only
                inner = getattr(node, field, [])
                for child in inner:
                    nested = child.body if isinstance(child, _HOLDERS) else [child]
                    yield from self._imports(nested, runs, at_module_level and not inside)

    def _names(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        base = node.module or ""
        if node.level:
            up = self.name.split(".")
            up = up[: len(up) - node.level + self.is_package]
            base = ".".join([*up, *filter(None, [base])])
        return [f"{base}.{alias.name}" for alias in node.names]

    @cached_property
    def code_lines(self) -> set[int]:
        """Line numbers that hold code: no blank line, no comment, no docstring."""
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in NOT_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                text = node.body[0]
                lines.difference_update(range(text.lineno, (text.end_lineno or 0) + 1))
        return lines

    def functions(self) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        """Every function with its dotted name inside this module."""
        yield from _functions(self.tree, "")


_HOLDERS = ast.ExceptHandler | ast.match_case
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _functions(
    parent: ast.AST, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        else:
            yield from _functions(node, prefix)


class Tree:
    """All modules of the package, by name, and who imports whom."""

    def __init__(self) -> None:
        self.modules = {
            module.name: module for module in map(Module, sorted(ROOT.glob("zray/**/*.py")))
        }

    def under(self, *packages: str) -> list[Module]:
        """The modules that are one of ``packages`` or below one."""
        return [m for m in self.modules.values() if is_under(m.name, *packages)]

    def tests(self, folder: str) -> list[Module]:
        """The test modules of one folder of tests/."""
        return [Module(path) for path in sorted((ROOT / "tests" / folder).rglob("*.py"))]

    def resolve(self, name: str) -> str | None:
        """The module of the package that an imported name lies in; None for a foreign one."""
        if not is_under(name, "zray"):
            return None
        while name not in self.modules and "." in name:
            name = name.rpartition(".")[0]
        return name

    def reached(self, start: str) -> dict[str, str]:
        """What importing ``start`` runs, at module level: module -> the one that imported it."""
        reached = {start: start}
        todo = [start]
        while todo:
            here = todo.pop()
            for item in self.modules[here].imports:
                there = self.resolve(item.name)
                if there is None or item.typing_only or not item.at_module_level:
                    continue
                if there in self.modules and there not in reached:
                    reached[there] = here
                    todo.append(there)
        return reached


def is_under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.fixture(scope="session")
def tree() -> Tree:
    return Tree()
