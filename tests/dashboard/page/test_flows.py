"""What somebody comes to the page for, clicked through in a real browser at a real cluster."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.real_cluster import STOP_S

pytestmark = pytest.mark.system

EVIL = "<script>alert(1)</script>"


def test_what_waits_says_why(viewer: Any) -> None:
    """From the overview to the reason, by links alone."""
    page = viewer.page
    reason = page.get_by_role("region", name="What waits").or_(page.locator("main"))
    expect(reason.get_by_text("no node ever has CPU 64").first).to_be_visible()
    page.get_by_role("link", name="Waiting tasks").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
    page.get_by_role("link", name="big", exact=True).click()
    why = page.locator("#why")
    expect(why).to_contain_text("INFEASIBLE")
    expect(why).to_contain_text("no node ever has CPU 64")
    expect(why).to_contain_text("What would help: add a node that has it, or ask for less")


def test_the_chain_behind_a_waiting_task_is_followed_and_drawn(viewer: Any) -> None:
    viewer.go(f"tasks/{viewer.id_of('tasks', name='report')}")
    page = viewer.page
    expect(page.locator("#why li")).to_have_count(2)
    expect(page.locator("#why")).to_contain_text("the first is the result of big")
    picture = page.get_by_role("region", name="Dependency picture")
    expect(picture.locator("rect")).to_have_count(2)
    picture.get_by_role("link", name="big INFEASIBLE").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("big")


def test_markup_in_a_name_is_text(viewer: Any) -> None:
    page = viewer.page
    expect(page.locator("main")).to_contain_text("no node ever has CPU 64")
    viewer.go("tasks?state=PENDING_NODE_ASSIGNMENT")
    page.get_by_role("link", name=EVIL).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(EVIL)
    assert page.title() == f"{EVIL} \u00b7 zray"
    assert page.locator("body script").count() == 0


def test_filters_are_applied_by_the_head_and_stay_in_the_address(viewer: Any) -> None:
    viewer.go("tasks")
    page = viewer.page
    page.get_by_label("Name", exact=True).fill("broken")
    row = page.get_by_role("row").filter(has_text="broken")
    expect(row).to_contain_text("ValueError: column <b>age</b> is missing")
    expect(page.get_by_text(re.compile("^1 match, of 3"))).to_be_visible()
    assert page.evaluate("location.hash") == "#/tasks?name=broken"
    page.get_by_label("Name", exact=True).fill("nobody")
    expect(page.get_by_text("Nothing matches these filters")).to_be_visible()


def test_tasks_are_counted_by_name(viewer: Any) -> None:
    viewer.go("tasks")
    page = viewer.page
    page.get_by_role("link", name="By name").click()
    row = page.get_by_role("grid", name="Tasks by name").get_by_role("row").filter(has_text="quick")
    expect(row).to_contain_text("300")
    row.get_by_role("link", name="quick").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("quick")


def test_the_chosen_row_stays_when_the_table_renews_itself(viewer: Any) -> None:
    viewer.go("tasks?state=PENDING_NODE_ASSIGNMENT")
    page = viewer.page
    table = page.get_by_role("grid", name="Tasks")
    expect(table.get_by_role("row").nth(2)).to_be_visible()
    table.focus()
    page.keyboard.press("End")
    chosen = table.locator('[aria-selected="true"]').inner_text()
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_text(re.compile(r"as of \d+ ms ago"))).to_be_visible()
    assert table.locator('[aria-selected="true"]').inner_text() == chosen


def test_an_actor_is_killed_once_confirmed(viewer: Any) -> None:
    viewer.go(f"actors/{viewer.id_of('actors', name='victim')}")
    page = viewer.page
    kill = page.get_by_role("button", name="Kill", exact=True)
    kill.click()
    dialog = page.get_by_role("dialog", name="Kill actor victim?")
    expect(dialog).to_contain_text("Its state is lost")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(kill).to_be_focused()
    kill.click()
    dialog.get_by_role("button", name="Kill actor").click()
    expect(dialog.get_by_role("status")).not_to_be_empty()
    dialog.get_by_role("button", name="Close").last.click()
    expect(page.locator("main .head-line .chip")).to_have_text("Dead")
    expect(page.locator("#why")).to_contain_text("DEAD")
    expect(kill).to_have_count(0)


def test_a_log_is_followed(viewer: Any) -> None:
    viewer.go(f"tasks/{viewer.id_of('tasks', name='chatter')}")
    page = viewer.page
    page.get_by_role("link", name="Log", exact=True).click()
    log = page.get_by_role("log")
    expect(log).to_contain_text("epoch 3 <img src=x onerror=alert(1)>")
    last = int(re.findall(r"epoch (\d+)", log.inner_text())[-1])
    expect(log).to_contain_text(f"epoch {last + 5} ")
    assert log.locator("img").count() == 0
    # A bar that draws itself again on its line is seen as it was last, and colours are left out.
    expect(log.get_by_text("100%", exact=True).first).to_be_attached()
    page.get_by_label("Follow").uncheck()
    expect(page.get_by_text("not followed")).to_be_visible()


def test_logs_are_found_by_node(viewer: Any) -> None:
    viewer.go("logs")
    page = viewer.page
    page.get_by_label("Find among these").fill("chatter")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="chatter").click()
    expect(page.get_by_role("log")).to_contain_text("epoch")


def test_a_stack_and_a_flame_graph_are_a_click_away(viewer: Any) -> None:
    viewer.go(f"tasks/{viewer.id_of('tasks', name='chatter')}")
    page = viewer.page
    page.get_by_role("button", name="Stack").click()
    dialog = page.get_by_role("dialog", name="Where chatter is")
    expect(dialog.get_by_label("Stack")).to_contain_text("chatter (program.py:")
    dialog.get_by_label("Seconds to record").select_option("2")
    dialog.get_by_role("button", name="Record a flame graph").click()
    graph = page.frame_locator("iframe.flame")
    expect(graph.locator("#frames")).to_be_visible()
    expect(dialog.get_by_text("Wide bars are where the time went.")).to_be_visible()
    # The graph is a document of its own, from which the page cannot be reached.
    assert page.locator("iframe.flame").get_attribute("sandbox") == "allow-scripts"


def test_all_of_it_goes_by_keyboard(viewer: Any) -> None:
    page = viewer.page
    page.reload()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    viewer.go("tasks?state=PENDING_NODE_ASSIGNMENT")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    table = page.get_by_role("grid", name="Tasks")
    expect(table.get_by_role("row").nth(2)).to_be_visible()
    for _ in range(20):
        if table.evaluate("grid => grid === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(table).to_be_focused()
    page.keyboard.press("End")
    chosen = table.locator('[aria-selected="true"]')
    name = chosen.get_by_role("link").inner_text()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("scores")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("scores")


@pytest.mark.parametrize(
    "address", ["__proto__", "constructor/1", "toString", "nothing", "events/1"]
)
def test_an_address_that_names_no_view_is_said(viewer: Any, address: str) -> None:
    viewer.go(address)
    assert viewer.page.locator("h1").inner_text() == "There is no such page"


def test_nothing_of_that_name_is_said(new_viewer: Any) -> None:
    viewer = new_viewer()
    page = viewer.page
    page.get_by_label("Find an id, node or actor").fill("nobody <b>here</b>")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("Nothing is known as nobody <b>here</b>")


def test_each_thing_has_a_link(viewer: Any) -> None:
    """What a link of one view leads to is a page of its own, also when it is loaded anew."""
    page = viewer.page
    viewer.go(f"nodes/{viewer.id_of('nodes', node_name='one')}")
    expect(page.get_by_role("heading", level=1)).to_have_text("one")
    expect(page.get_by_role("region", name="Processes")).to_contain_text("Node")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("one")
    job = viewer.ask("jobs")["items"][0]["job_id"]
    viewer.go(f"jobs/{job}")
    expect(page.locator("#why")).to_contain_text("unfinished tasks")
    page.get_by_role("link", name="All of them").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")


def test_a_node_is_drained_once_confirmed(cluster: Any, viewer: Any) -> None:
    node = cluster.start_node("leaving", 1)
    viewer.go(f"nodes/{viewer.id_of('nodes', node_name='leaving')}")
    page = viewer.page
    page.get_by_role("button", name="Drain").click()
    dialog = page.get_by_role("dialog", name="Drain node leaving?")
    dialog.get_by_label("Reason").fill("kernel update")
    dialog.get_by_role("button", name="Drain node").click()
    expect(dialog.get_by_role("status")).not_to_be_empty()

    node.wait(STOP_S)
    expect(page.locator("main .head-line .chip")).to_have_text("Dead")


def test_a_placement_group_that_waits_says_why(viewer: Any) -> None:
    """From the overview to the group, to what each bundle has, and to the node of one that is."""
    page = viewer.page
    page.locator("main").get_by_role("link", name="placement group", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Placement groups")
    table = page.get_by_role("grid", name="Placement groups")
    row = table.get_by_role("row").filter(has_text="<b>gpus</b>")
    expect(row).to_contain_text("Pending")
    expect(row).to_contain_text("0 / 2")
    expect(row).to_contain_text("no node ever has that")
    expect(table.get_by_role("row").filter(has_text="trainers")).to_contain_text("2 / 2")
    row.get_by_role("link", name="<b>gpus</b>").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("<b>gpus</b>")
    expect(page.locator("#why")).to_contain_text("bundle 1 needs GPU 1; no node ever has that")
    bundles = page.get_by_role("region", name="Bundles")
    expect(bundles.get_by_role("row")).to_have_count(3)
    expect(bundles.get_by_role("row").nth(2)).to_contain_text("no place yet")
    viewer.go(f"placement_groups/{viewer.id_of('placement_groups', name='trainers')}")
    expect(page.locator("main")).to_contain_text("memory 2.0 MiB")
    names = {"one", "two", "head"}
    expect(bundles.get_by_role("link")).to_have_count(2)
    assert {*bundles.get_by_role("link").all_inner_texts()} <= names
    page.get_by_role("link", name="pid").or_(bundles.get_by_role("link")).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^(one|two|head)$"))


def test_a_job_leads_to_its_placement_groups(viewer: Any) -> None:
    viewer.go("jobs")
    viewer.page.get_by_role("link", name="program.py").click()
    groups = viewer.page.get_by_role("region", name="Placement groups")
    expect(groups.get_by_role("link", name="trainers")).to_be_visible()
