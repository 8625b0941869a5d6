"""How ``zray memory`` looks: groups, sums, units, in any width, whatever names have in them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, Group

from zray.cli.memory import MemoryView
from zray.util.state.memory import MemoryReport, NodeMemory, ReferenceState

MB = 1 << 20
EVIL = "\x1b[31m[bold]\u4f60\u597d"


def reference(number: int, size: int, **more: Any) -> ReferenceState:
    row: dict[str, Any] = {
        "object_id": f"{number:040x}",
        "object_size": size,
        "state": "READY",
        "reference_type": "LOCAL_REFERENCE",
        "references": {"LOCAL_REFERENCE": 1},
        "type": "DRIVER",
        "holder_id": "d" * 32,
        "holder_name": "",
        "pid": 100 + number,
        "node": "n1",
        "call_site": "disabled",
        "places": ["shared memory of n1"],
    }
    return ReferenceState(**{**row, **more})


def shown(report: MemoryReport, width: int = 300, *, only_stats: bool = False, **how: Any) -> str:
    chosen = {"group_by": "", "sort_by": "size", "units": "", "most": 100, **how}
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False)
    console.print(Group(*MemoryView(**chosen).tables(report, width, only_stats=only_stats)))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_an_object_that_several_hold_counts_once() -> None:
    rows = [reference(1, MB), reference(1, MB, pid=7, type="WORKER"), reference(2, 3 * MB)]
    text = shown(MemoryReport(rows, [NodeMemory("n", "n1", 8 * MB, 4 * MB, MB, 2)]))
    assert "2 objects, 4.0 MiB, by 3 references" in text
    assert "node n1: 4.0 MiB of 8.0 MiB of shared memory (50%), 2 objects, 1.0 MiB spilled" in text
    assert "4,096.00 KB" in shown(MemoryReport(rows), units="KB")


def test_groups_have_their_own_sums_and_bounds() -> None:
    rows = [reference(n, MB, call_site=f"a.py:f:{n % 2}", node=f"n{n % 3}") for n in range(6)]
    text = shown(MemoryReport(rows, records_sites=True), group_by="call_site", most=2)
    assert text.count("3 objects, 3.0 MiB, by 3 references") == 2
    assert text.count("1 smaller ones are not shown") == 2
    assert shown(MemoryReport(rows), group_by="node").count("2 objects, 2.0 MiB") == 3


def test_sums_alone_have_no_rows_and_what_is_missing_is_said() -> None:
    report = MemoryReport(
        [reference(1, MB)], silent=["driver pid 7 on h"], left_out=12_345, unlisted=7
    )
    text = shown(report, only_stats=True)
    assert f"{1:040x}" not in text
    assert "driver pid 7 on h has not answered" in text and "hold 12,345 others" in text
    assert "7 more objects of the cluster" in text
    assert "ZRAY_RECORD_CALL_SITE=1" in text
    assert "0 objects" in shown(MemoryReport())


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_leaves_the_terminal_and_none_is_obeyed(width: int) -> None:
    row = reference(1, MB, holder_name=EVIL, call_site=EVIL * 20, places=[EVIL], node=EVIL)
    report = MemoryReport([row], [NodeMemory("n", EVIL, 1, 1, 0, 1)], [EVIL], records_sites=True)
    for group_by in ("", "call_site", "node"):
        text = shown(report, width, group_by=group_by)
        assert "\x1b" not in text
