"""The page for people who come from Ray says of each name what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from zray import exceptions
from zray.compat import names

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "coming-from-ray.md").read_text()
ROWS = re.findall(r"^\| `(ray[\w.]+)` \| ([\w ]+) \| (.*?) ?\|$", PAGE, re.MULTILINE)


def public_names() -> list[str]:
    """Those that real Ray is asked for, too (``tests/conformance/test_names.py``)."""
    lines = (ROOT / "tests" / "conformance" / "ray_names.txt").read_text().splitlines()[1:]
    split = [line.partition(": ") for line in lines]
    return [f"{module}.{name}" for module, _, found in split for name in found.split()]


def instead(name: str) -> str | None:
    """What the code says to use for a name that is not there."""
    module, _, last = name.rpartition(".")
    entry = names.MODULES.get(module, {}).get(last)
    if isinstance(entry, names.Instead):
        return entry.text
    return names.ABSENT_MODULES.get(name) or names.ABSENT_MODULES.get(module)


def test_each_public_name_has_a_row() -> None:
    assert [name for name, _, _ in ROWS] == public_names()


def test_what_is_not_there_is_said_to_be_so_and_what_to_use() -> None:
    said = {name: remark for name, here, remark in ROWS if here == "not there"}
    assert said == {name: text for name, _, _ in ROWS if (text := instead(name)) is not None}


def test_exceptions_that_never_come_are_said_to_be_such() -> None:
    said = {name for name, here, _ in ROWS if here == "never raised"}
    assert said == {
        f"ray.exceptions.{name}"
        for name in exceptions.__all__
        if getattr(exceptions, name).__module__ == "zray.exceptions"
    }


def test_rows_are_of_the_kinds_that_the_page_explains() -> None:
    assert {here for _, here, _ in ROWS} <= {*re.findall(r"^- \*\*([\w ]+)\*\*:", PAGE, re.M)}
    assert all(remark for _, here, remark in ROWS if here != "same")
