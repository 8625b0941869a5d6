"""How code travels by value: its file, its lines, wherever it is read."""

from __future__ import annotations

import linecache
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zray import limits
from zray.runtime import serialization

SOURCE = """
def outer(number):
    def inner():
        raise ValueError(number)  # the inner line

    return inner


def other():
    raise KeyError("other")  # the other line
"""
ELSEWHERE = "# another file of that name\n" * 3


@pytest.fixture(autouse=True)
def _cache_as_before() -> Iterator[None]:
    before = dict(linecache.cache)
    yield
    linecache.cache.clear()
    linecache.cache.update(before)


def defined(source: str, path: Path) -> dict[str, Any]:
    path.write_text(source)
    module = types.ModuleType("__main__")
    exec(compile(source, str(path), "exec"), vars(module))
    return vars(module)


def sent(function: Callable[..., Any]) -> bytes:
    return serialization.dumps_function(function, False).blob


def raised(blob: bytes, *args: Any) -> str:
    function, _ = serialization.loads_function(blob)
    try:
        function(*args)
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize("there", [None, ELSEWHERE, ""], ids=["none", "another", "empty"])
def test_lines_are_shown_where_the_file_is_not(tmp_path: Path, there: str | None) -> None:
    path = tmp_path / "script.py"
    names = defined(SOURCE, path)
    blobs = [sent(names["outer"](1)), sent(names["other"])]
    linecache.clearcache()
    path.unlink() if there is None else path.write_text(there)
    for blob, line, text in zip(blobs, (4, 10), ("the inner line", "the other line"), strict=True):
        shown = raised(blob)
        assert f'File "{path}", line {line}, in ' in shown and text in shown, shown
    assert "the inner line" in raised(blobs[0])  # what came later left it


def test_the_same_file_is_read_itself(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    names = defined(SOURCE, path)
    blob = sent(names["other"])
    linecache.clearcache()
    assert "the other line" in raised(blob)
    assert linecache.getline(str(path), 2) == "def outer(number):\n"


def test_the_same_code_makes_the_same_function(tmp_path: Path) -> None:
    ids = {
        serialization.dumps_function(
            defined(SOURCE, tmp_path / "script.py")["other"], False
        ).function_id
        for _ in range(3)
    }
    assert len(ids) == 1


def test_code_without_a_file_and_long_code_travel_without_their_text(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(SOURCE, "<string>", "exec"), names)
    assert 'File "<string>", line 10, in other' in raised(sent(names["other"]))
    padding = f"    {'x' * 98!r}\n" * (limits.SOURCE_CHARS_MAX // 100)
    path = tmp_path / "long.py"
    long = defined("def long():\n" + padding + "    raise OSError('long')\n", path)["long"]
    blob = sent(long)
    assert len(blob) < limits.SOURCE_CHARS_MAX
    path.unlink()
    linecache.clearcache()
    assert f'File "{path}", line ' in raised(blob)
