"""How the page is: accessible in both themes, as wide as its window, silent, bounded in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.dashboard.page.conftest import DESK, PHONE
from tests.real_cluster import until

pytestmark = pytest.mark.system

# Each view, by what stands in its address; a thing by how it is found.
VIEWS = [
    "overview",
    "nodes",
    "tasks",
    "actors",
    "objects",
    "workers",
    "jobs",
    "placement_groups",
    "logs",
    "events",
    "names",
]
THINGS = {
    "tasks": {"name": "report"},
    "actors": {"name": "scores"},
    "nodes": {"node_name": "one"},
    "placement_groups": {"name": "trainers"},
}
# Beside the rules on contrast and so on: what an application is expected to do.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ROWS = 100_000
STEPS = 40
FRAME_S = 0.1
MANY_ROWS = Path(__file__).with_name("many_rows.js")
GROWTH = 1.25
KEPT = ("Nodes", "JSEventListeners", "JSHeapUsedSize")


def addresses(viewer: Any) -> Iterator[str]:
    yield from [*VIEWS, "timeline", "no-such-view"]
    for kind, filters in THINGS.items():
        yield f"{kind}/{viewer.id_of(kind, **filters)}"
    worker = viewer.ask("workers?filter=worker_type=WORKER")["items"][0]["worker_id"]
    yield f"workers/{worker}"
    yield f"logs/{worker}"
    yield f"jobs/{viewer.ask('jobs')['items'][0]['job_id']}"
    yield f"objects/{viewer.ask('objects')['items'][0]['object_id']}"


def settle(viewer: Any) -> None:
    """Wait until the view has what it has asked for."""
    viewer.page.wait_for_load_state("domcontentloaded")
    expect(viewer.page.locator("main")).not_to_contain_text("Asking \u2026")
    viewer.page.wait_for_function("() => document.querySelector('main').innerText.length > 20")


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)])
def test_each_view_is_accessible(
    new_viewer: Callable[..., Any], axe: str, scheme: str, size: dict[str, int]
) -> None:
    """No rule of axe-core is violated, in either theme."""
    viewer = new_viewer(color_scheme=scheme, viewport=size, script=axe)
    wrong = []
    for address in addresses(viewer):
        viewer.go(address)
        settle(viewer)
        found = viewer.page.evaluate(
            "async rules => (await axe.run(document, {runOnly: rules})).violations", RULES
        )
        wrong += [f"{address}: {one['id']}: {one['nodes'][0]['html']}" for one in found]
    viewer.context.close()
    assert not wrong, "\n".join(wrong)
    assert not viewer.said, "\n".join(viewer.said)


def test_dialogs_and_the_menu_are_accessible(new_viewer: Callable[..., Any], axe: str) -> None:
    viewer = new_viewer(script=axe, viewport=PHONE)
    page = viewer.page
    run = """async rules => (await axe.run(document, {runOnly: rules})).violations.map(
        one => `${one.id}: ${one.nodes[0].html}`)"""
    page.get_by_role("button", name="Menu").click()
    expect(page.get_by_role("navigation", name="Views")).to_be_visible()
    assert page.evaluate(run, RULES) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Menu")).to_be_focused()
    viewer.go(f"nodes/{viewer.id_of('nodes', node_name='one')}")
    page.get_by_role("button", name="Drain").click()
    assert page.evaluate(run, RULES) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Stack", exact=True).click()
    expect(page.get_by_label("Stack", exact=True)).to_contain_text("Thread")
    assert page.evaluate(run, RULES) == []
    viewer.context.close()


def test_no_view_is_wider_than_its_window(viewer: Any) -> None:
    wide = []
    for address in addresses(viewer):
        viewer.go(address)
        settle(viewer)
        for width in (320, PHONE["width"], 821, DESK["width"]):
            viewer.page.set_viewport_size({"width": width, "height": 800})
            found = viewer.page.evaluate("document.documentElement.scrollWidth")
            if found > width:
                wide.append(f"{address}: {found} of {width}")
    assert not wide, "\n".join(wide)


def test_the_switch_of_the_theme_is_remembered(new_viewer: Callable[..., Any]) -> None:
    viewer = new_viewer()
    page = viewer.page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(background) == dark
    viewer.context.close()
    assert not viewer.said


def test_a_table_of_very_many_rows_scrolls_without_a_long_frame(
    new_viewer: Callable[..., Any],
) -> None:
    """Of 100,000 rows few are elements; what a step costs is CPU time, whatever else runs here."""
    viewer = new_viewer()
    page = viewer.page
    session = viewer.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy_s() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    viewer.go("no-such-view")
    page.evaluate(MANY_ROWS.read_text(), ROWS)
    took = []
    for step in range(STEPS + 1):
        before = busy_s()
        page.evaluate("share => many.scroll(share)", step / STEPS)
        took.append(busy_s() - before)
    assert page.evaluate("many.names().at(-1)") == f"task {ROWS - 1}"
    assert page.evaluate("many.elements()") < 100
    assert max(took) < FRAME_S, took
    assert sum(took) > 0
    assert page.evaluate("many.sort()") > 2  # frames went on meanwhile
    page.evaluate("many.scroll(0)")
    keys = [int(name.split()[1]) * 7919 % ROWS for name in page.evaluate("many.names()")]
    assert keys == list(range(len(keys)))
    viewer.context.close()


def test_what_is_kept_does_not_grow(new_viewer: Callable[..., Any]) -> None:
    """Elements, listeners and memory are after many views as they were after the first of them."""
    viewer = new_viewer()
    session = viewer.context.new_cdp_session(viewer.page)
    session.send("Performance.enable")
    round_trip = [*VIEWS, "timeline", f"tasks/{viewer.id_of('tasks', name='report')}"]

    def look() -> None:
        for address in round_trip:
            viewer.go(address)
            settle(viewer)
        viewer.go("no-such-view")

    def measured() -> dict[str, float]:
        for _ in range(2):  # what holds an element may itself be garbage of the first time
            session.send("HeapProfiler.collectGarbage")
        found = session.send("Performance.getMetrics")["metrics"]
        return {one["name"]: one["value"] for one in found if one["name"] in KEPT}

    for _ in range(2):  # charts keep the last one that was made
        look()
    first = measured()
    for _ in range(3):
        look()

    def is_small() -> bool:
        last.update(measured())
        return all(last[name] <= GROWTH * first[name] for name in KEPT)

    last: dict[str, float] = {}
    try:
        until(is_small, 10, f"as small as at first, {first}")
    except TimeoutError:
        pytest.fail(f"grown from {first} to {last}")
    viewer.context.close()
    assert not viewer.said
