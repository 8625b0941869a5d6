"""The files to begin with: they are filled in, and name metrics that there are."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from zray.metrics.catalog import HISTOGRAM, METRICS
from zray.metrics.export import FILES, TOKEN, export

FOLDER = resources.files("zray.metrics") / "files"
NAMES = re.compile(r"\bzray_\w+")
SUFFIXES = ("_bucket", "_count", "_sum")


def test_rules_and_dashboard_name_metrics_that_there_are() -> None:
    for file in ("zray.rules.yml", "zray-dashboard.json"):
        for name in NAMES.findall((FOLDER / file).read_text("utf-8")):
            base = next((name.removesuffix(one) for one in SUFFIXES if name.endswith(one)), name)
            metric = METRICS.get(name) or METRICS[base]
            assert (metric.kind == HISTOGRAM) == (base != name), name


@pytest.mark.system
def test_the_dashboard_s_expressions_are_ones_that_prometheus_reads(tmp_path: Path) -> None:
    board = json.loads((FOLDER / "zray-dashboard.json").read_text("utf-8"))
    expressions = [
        target["expr"].replace("$__rate_interval", "1m").replace("$node", ".*")
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(expressions) > 30 and len({panel["id"] for panel in board["panels"]}) == len(
        board["panels"]
    )
    rules = [{"record": f"r:{n}", "expr": one} for n, one in enumerate(expressions)]
    path = tmp_path / "all.yml"
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))  # YAML, too
    ran = subprocess.run(
        ["promtool", "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_files_are_filled_in_and_only_their_owner_reads_the_token(tmp_path: Path) -> None:
    folder = tmp_path / 'my "folder"'
    paths = export(folder, "https://box.example:8265", "secret")
    assert [path.name for path in paths] == [*FILES, TOKEN]
    text = (folder / "prometheus.yml").read_text()
    assert "@" not in text and 'targets: ["box.example:8265"]' in text
    assert 'scheme: "https"' in text
    assert (folder / TOKEN).read_text() == "secret"
    assert stat.S_IMODE((folder / TOKEN).stat().st_mode) == 0o600


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    export(tmp_path, "http://a:1", "one")
    with pytest.raises(FileExistsError, match="--force"):
        export(tmp_path, "http://b:2", "two")
    assert (tmp_path / TOKEN).read_text() == "one"
    export(tmp_path, "http://b:2", "two", force=True)
    assert (tmp_path / TOKEN).read_text() == "two"


@pytest.mark.parametrize(
    "address", ["", "8265", "box:8265", "ftp://box:1", 'http://a"b:1', "http://a@b:1", "http://a/x"]
)
def test_what_is_no_dashboard_s_address_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|address"):
        export(tmp_path, address, "secret")
    assert not [*tmp_path.iterdir()]
