"""What the page says and does when head, dashboard process or session are gone, and are back."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from playwright.sync_api import Locator, expect

from tests.real_cluster import Cluster

pytestmark = pytest.mark.system

PATIENCE_MS = 30_000
EXPECTED = ("net::ERR_", "Failed to load resource")  # of a server that is away


def notices(viewer: Any) -> Locator:
    found: Locator = viewer.page.get_by_role("region", name="Notices")
    return found


def dashboard_process(cluster: Cluster) -> psutil.Process:
    """The one that serves the page."""
    assert cluster.head is not None
    children = cluster.head.children()
    (found,) = [one for one in children if "zray.dashboard" in " ".join(one.cmdline())]
    return found


def test_a_session_that_is_over_is_said_and_a_new_one_taken(
    new_viewer: Callable[..., Any],
) -> None:
    viewer = new_viewer()
    page = viewer.page
    viewer.context.clear_cookies()
    viewer.go("jobs")
    expect(notices(viewer)).to_contain_text("This session is over. Run zray dashboard")
    other = viewer.context.new_page()
    other.goto(viewer.link())
    expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    expect(notices(viewer)).to_be_empty()
    expect(page.get_by_role("row")).to_have_count(2)  # what the view could not load before
    viewer.context.close()


def test_a_dashboard_process_that_dies_is_no_concern(
    cluster: Cluster, new_viewer: Callable[..., Any]
) -> None:
    """The head starts another one when the page asks again."""
    viewer = new_viewer()
    old = dashboard_process(cluster)
    old.kill()
    old.wait(10)
    viewer.go("actors")
    expect(viewer.page.get_by_text("scores", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    expect(viewer.page.get_by_text("Live", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    viewer.context.close()


def test_a_head_that_is_stopped_or_killed_is_said_and_the_page_goes_on(
    cluster: Cluster, new_viewer: Callable[..., Any]
) -> None:
    viewer = new_viewer()
    live = viewer.page.get_by_text("Live", exact=True)
    assert cluster.head is not None
    cluster.head.signal(signal.SIGSTOP)
    try:
        expect(notices(viewer)).to_contain_text("The head does not answer", timeout=PATIENCE_MS)
        expect(notices(viewer)).to_contain_text("The page tries again by itself")
    finally:
        cluster.head.signal(signal.SIGCONT)
    expect(live).to_be_visible(timeout=PATIENCE_MS)
    expect(notices(viewer)).to_be_empty()
    port = cluster.info().dashboard.rpartition(":")[2]
    cluster.head.kill()
    expect(notices(viewer)).to_contain_text("does not answer", timeout=PATIENCE_MS)
    expect(notices(viewer)).to_contain_text("zray status")
    head = cluster.start_head("--dashboard-port", port, port=-1)
    try:
        expect(live).to_be_visible(timeout=PATIENCE_MS)
        expect(notices(viewer)).to_be_empty()
        viewer.go("nodes")
        one = viewer.page.get_by_role("region", name="Node one")
        expect(one).to_be_visible(timeout=PATIENCE_MS)
        assert not [one for one in viewer.said if not any(name in one for name in EXPECTED)]
    finally:
        viewer.context.close()
        head.stop()
