"""A real cluster with something of everything, and a headless Chromium that looks at it.

Owns the browser and what it has seen. What a test needs and is not here is a failure, never a skip.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.real_cluster import Cluster, Program
from zray.runtime.web_keys import WebKeys

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
HERE = Path(__file__).parent
PATIENCE_MS = 15_000
# Of each kind of things at least one: what waits, runs, has failed, prints.
PROGRAM = """
import time

import zray
from zray.util import placement_group

zray.init()

@zray.remote(num_cpus=64)
def big(value):
    return value

@zray.remote
def report(value):
    return value

@zray.remote
def broken():
    raise ValueError("column <b>age</b> is missing")

@zray.remote
def chatter():
    number = 0
    print("50%\\r\\x1b[32m100%\\x1b[0m", flush=True)
    while True:
        print(f"epoch {number} <img src=x onerror=alert(1)>", flush=True)
        number += 1 + 0 * sum(range(200_000))  # something for a profile to see
        time.sleep(0.1)

@zray.remote
def quick(number):
    return number

@zray.remote(num_cpus=0)
class Scores:
    def add(self, number):
        return number

scores = Scores.options(name="scores").remote()
victim = Scores.options(name="victim").remote()
zray.get([actor.add.remote(1) for actor in (scores, victim)])
kept = [big.remote(1), chatter.remote(), zray.put(bytes(2_000_000))]
kept.append(report.remote(kept[0]))
kept.append(big.options(name="<script>alert(1)</script>").remote(2))
groups = [placement_group([{"memory": 2**20}] * 2, strategy="SPREAD", name="trainers")]
groups.append(placement_group([{"memory": 2**20}, {"GPU": 1}], name="<b>gpus</b>"))
groups[0].wait(30)
zray.get([quick.remote(number) for number in range(300)])
try:
    zray.get(broken.remote())
except ValueError:
    pass
print("SET UP", flush=True)
time.sleep(3600)
"""


class Viewer:
    """One browser window at the dashboard; ``said`` is what its console has told."""

    def __init__(self, context: BrowserContext, cluster: Cluster) -> None:
        self.context = context
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.said: list[str] = []
        self.dialogs: list[str] = []
        self._cluster = cluster
        self._watch(self.page)

    def _watch(self, page: Page) -> None:
        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.said.append(f"{message.type}: {message.text} ({message.location['url']})")

        page.on("console", heard)
        page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))

        def asked(dialog: Any) -> None:
            self.dialogs.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", asked)

    def link(self) -> str:
        """A link that logs in, once."""
        info = self._cluster.info()
        return f"{info.dashboard}/?code={WebKeys.of(info).code(time.time())}"

    def log_in(self) -> None:
        self.page.goto(self.link())
        self.page.get_by_text("Live", exact=True).wait_for(state="attached")

    def go(self, address: str) -> None:
        """To a view of the page, as by a link; returns when its title is there."""
        self.page.evaluate("address => { location.hash = address; }", f"#/{address}")
        # A truth value: the handle of an element would keep the view after it was left.
        self.page.wait_for_function(
            "address => location.hash === address && document.querySelector('main h1') !== null",
            arg=f"#/{address}",
        )

    def ask(self, path: str) -> Any:
        """What the API says to this window."""
        return self.page.evaluate(
            "async path => (await (await fetch(`/api/v1/${path}`)).json())", path
        )

    def id_of(self, kind: str, **filters: str) -> str:
        """The id of the one thing that has these fields."""
        query = "&".join(f"filter={key}={value}" for key, value in filters.items())
        items = self.ask(f"{kind}?{query}")["items"]
        assert len(items) == 1, items
        found: str = items[0][f"{kind[:-1]}_id"]
        return found


def program(cluster: Cluster) -> Program:
    """The program of ``PROGRAM``, once everything of it is there."""
    found = cluster.run("program", PROGRAM)
    found.says("SET UP")
    return found


@pytest.fixture(scope="module")
def cluster(_module_leaves_nothing: Path) -> Iterator[Cluster]:
    """A head, the nodes ``one`` and ``two``, and the program."""
    found = Cluster(_module_leaves_nothing)
    try:
        found.start_head("--dashboard-port", "0")
        found.start_node("one", 2, wait=False)
        found.start_node("two", 2, wait=False)
        found.await_node("one")
        found.await_node("two")
        program(found)
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def browser(_module_leaves_nothing: Path) -> Iterator[Browser]:
    """The distribution's Chromium, without a window."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("chromium is missing; .ci/system-packages installs it", pytrace=False)
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        found = playwright.chromium.launch(executable_path=path, args=options)
        try:
            yield found
        finally:
            found.close()


@pytest.fixture(scope="module")
def new_viewer(browser: Browser, cluster: Cluster) -> Iterator[Callable[..., Viewer]]:
    """Makes viewers, logged in; options are those of a browser context."""
    contexts: list[BrowserContext] = []

    def make(**options: Any) -> Viewer:
        script = options.pop("script", "")
        context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})
        contexts.append(context)
        if script:
            context.add_init_script(script)
        found = Viewer(context, cluster)
        found.log_in()
        return found

    try:
        yield make
    finally:
        for context in contexts:
            context.close()


@pytest.fixture(scope="module")
def _window(new_viewer: Callable[..., Viewer]) -> Viewer:
    return new_viewer()


@pytest.fixture
def viewer(_window: Viewer) -> Iterator[Viewer]:
    """A window at a desk, at the overview; its console must stay silent."""
    _window.page.set_viewport_size(DESK)
    _window.go("overview")
    yield _window
    said, dialogs = [*_window.said], [*_window.dialogs]
    _window.said.clear()
    _window.dialogs.clear()
    assert not said, "\n".join(said)
    assert not dialogs


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, of the version that package-lock.json names."""
    if shutil.which("npm") is None:
        pytest.fail("npm is missing; .ci/system-packages installs it", pytrace=False)
    folder = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline")
    done = subprocess.run(
        ["npm", "ci", *options], cwd=folder, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr
    package = folder / "node_modules" / "axe-core"
    assert json.loads((package / "package.json").read_text())["name"] == "axe-core"
    return (package / "axe.min.js").read_text()
