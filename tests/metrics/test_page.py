"""docs/metrics.md and the code say the same: metrics, alerts, and what a cluster's figures are.

The tables between ``<!-- NAME -->`` and ``<!-- end -->`` are made from the catalog:
``python tests/metrics/test_page.py`` writes them anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from zray.metrics.catalog import BOTH, HEAD, NODE, Metric  # noqa: E402

PAGE = ROOT / "docs" / "metrics.md"
RULES = ROOT / "zray" / "metrics" / "files" / "zray.rules.yml"
BLOCK = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
TABLES = {"head": HEAD, "node": NODE, "both": BOTH}
NAMED = re.compile(r'"(zray_\w*[a-z])"')
COUNTED = ("zray/core", "zray/nodes", "zray/runtime", "zray/metrics/exposition.py")


def table(metrics: Iterable[Metric]) -> str:
    lines = ["| metric | type | labels | what it is |", "|---|---|---|---|"]
    for one in metrics:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.help} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    return BLOCK.sub(
        lambda found: f"<!-- {found[1]} -->\n{table(TABLES[found[1]])}<!-- end -->\n", text
    )


def test_the_page_has_the_metrics_of_the_code() -> None:
    assert PAGE.read_text() == written(PAGE.read_text())


def test_each_alert_is_on_the_page() -> None:
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    assert alerts == set(re.findall(r"\bZray[A-Z]\w+", PAGE.read_text())) and len(alerts) > 15


def test_what_head_and_nodes_tell_is_what_is_in_the_catalog() -> None:
    told = set()
    for place in COUNTED:
        path = ROOT / place
        for file in [path] if path.is_file() else path.rglob("*.py"):
            told.update(NAMED.findall(file.read_text()))
    assert told == {one.name for one in (*HEAD, *NODE, *BOTH)}


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
