"""Modules and functions stay small enough to read at one sitting."""

from __future__ import annotations

from typing import Any

MODULE_LINES = 400  # of code: no blank line, comment or docstring counts
FUNCTION_LINES = 60

# What is larger for now, with the size it may not outgrow.
LARGER_MODULES: dict[str, int] = {}
LARGER_FUNCTIONS: dict[str, int] = {}


def test_modules_are_small(tree: Any) -> None:
    sizes = {name: len(module.code_lines) for name, module in tree.modules.items()}
    check(sizes, MODULE_LINES, LARGER_MODULES)


def test_functions_are_small(tree: Any) -> None:
    sizes = {
        f"{module.name}:{name}": sum(
            1 for line in module.code_lines if node.lineno <= line <= (node.end_lineno or 0)
        )
        for module in tree.modules.values()
        for name, node in module.functions()
    }
    check(sizes, FUNCTION_LINES, LARGER_FUNCTIONS)


def check(sizes: dict[str, int], limit: int, larger: dict[str, int]) -> None:
    grown = [
        f"{name}: {size} lines of code, at most {larger.get(name, limit)}"
        for name, size in sizes.items()
        if size > larger.get(name, limit)
    ]
    needless = [name for name in larger if sizes.get(name, 0) <= limit]
    assert not grown, "\n".join(grown)
    assert not needless, f"fits by now; take it off the list: {needless}"
