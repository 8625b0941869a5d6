"""``zray dashboard``: a link that logs in, a token for scripts, and nothing secret beside these."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.real_cluster import Cluster


def run(cluster: Cluster, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zray", "dashboard", "--address", cluster.address, *options],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.fixture
def cluster(zray_home: Path) -> Any:
    found = Cluster(zray_home)
    try:
        yield found
    finally:
        found.close()


def test_the_link_opens_the_page_and_the_token_the_api(cluster: Cluster) -> None:
    head = cluster.start_head("--dashboard-port", "0")
    url = cluster.info().dashboard
    shown = run(cluster, "--no-browser")
    link = shown.stdout.splitlines()[0]
    assert shown.returncode == 0 and link.startswith(f"{url}/?code=")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(link, timeout=10) as answer:
        assert answer.status == 200 and answer.url == f"{url}/" and b"zray" in answer.read()
    token = run(cluster, "--token").stdout.strip()
    request = urllib.request.Request(f"{url}/api/version")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    code = link.partition("code=")[2]
    for process in [head.pid, *(one.pid for one in head.below())]:
        told = Path(f"/proc/{process}/cmdline").read_bytes()
        told += Path(f"/proc/{process}/environ").read_bytes()
        assert token.encode() not in told and code.encode() not in told
    assert token not in head.text() and code not in head.text()
    assert url in head.text()


def test_a_head_without_a_page_says_so(cluster: Cluster) -> None:
    cluster.start_head("--no-dashboard")
    shown = run(cluster, "--no-browser")
    assert shown.returncode == 1 and "--no-dashboard" in shown.stderr
    assert run(cluster, "--token").returncode == 0


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--dashboard-port", "70000", "0 (any free one) to 65535"),
        ("--dashboard-port", "10001", "a head's"),
        ("--dashboard-name", "a b", "not the name of a host"),
        ("--dashboard-host", "nowhere.invalid", "no known name"),
    ],
)
def test_options_of_a_head_are_checked(option: str, value: str, text: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "zray.cli.head", option, value],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert shown.returncode == 2 and text in shown.stderr
