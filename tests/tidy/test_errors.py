"""Each error has a code of its own and a row in docs/errors.md."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from zray import errors

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
CLASSES = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, errors.ZrayError)
]


def test_codes_are_unique() -> None:
    codes = [one.code for one in dict.fromkeys(CLASSES)]
    assert sorted(codes) == sorted(set(codes))


def test_each_error_is_documented() -> None:
    rows = dict(re.findall(r"^\| (ZR-\d{4}) \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == {one.code: one.__name__ for one in dict.fromkeys(CLASSES)}
