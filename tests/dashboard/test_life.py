"""The process behind the page: there when somebody looks, gone when nobody does, back if killed."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import zray
from tests.real_cluster import until
from zray.errors import HeadSilentError, PortInUseError, StartError
from zray.runtime.web_keys import WebKeys

FIRST_PAGE_S = 3.0  # 0.4 s on an idle machine; here others compute as well


def health(site: Any) -> str:
    with site.stranger() as client:
        return str(client.get("/healthz").text)


def kill(site: Any) -> None:
    """Its process, and wait until that is gone with all that it had."""
    process = site.process()
    process.kill()
    until(lambda: not psutil.pid_exists(process.pid), 10, "it is dead")


def test_it_starts_when_somebody_comes_and_ends_when_nobody_looks(bare_site: Any) -> None:
    site = bare_site
    site.cluster.start_head("--dashboard-port", "0", environment={"ZRAY_DASHBOARD_IDLE_S": "0.5"})
    assert site.process() is None
    began = time.monotonic()
    assert health(site) == "OK"
    assert time.monotonic() - began < FIRST_PAGE_S
    first = site.process()
    assert first is not None and first.name() == "zray-dashboard"[:15]
    until(lambda: not first.is_running(), 10, "it has ended")
    assert health(site) == "OK" and site.process() != first
    with site.script() as client, client.stream("GET", "/api/v1/stream") as answer:
        watched = site.process()
        lines = answer.iter_lines()
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            next(lines)
        assert watched is not None and watched.is_running()  # a viewer is enough
    until(lambda: not watched.is_running(), 10, "it has ended")
    assert "failed" not in site.cluster.head.text()


def test_one_that_is_killed_comes_back_and_that_is_told(bare_site: Any) -> None:
    site = bare_site
    site.cluster.start_head("--dashboard-port", "0")
    with site.browser() as client:
        for _ in range(2):
            kill(site)
            answer = client.get("/api/v1/session")  # waits until another one is there
            assert answer.status_code == 200  # the login is of the key, not of the process
        found = client.get("/api/v1/cluster").json()["health"]
        assert found.startswith("DEGRADED") and "ZR-4007" in found
        events = client.get("/api/v1/events", params={"filter": "label=DASHBOARD_DIED"}).json()
        assert len(events["items"]) == 2 and "SIGKILL" in events["items"][0]["message"]
    assert "ZR-4007" in site.cluster.head.text()


def test_one_that_ends_by_a_signal_without_a_name_comes_back(bare_site: Any) -> None:
    site = bare_site
    site.cluster.start_head("--dashboard-port", "0")
    assert health(site) == "OK"
    site.process().send_signal(signal.SIGRTMIN + 1)
    assert health(site).startswith("DEGRADED")  # of the next one
    assert f"killed by signal {signal.SIGRTMIN + 1}" in site.cluster.head.text()
    assert "Traceback" not in site.cluster.head.text()


def test_a_code_that_may_have_been_used_before_is_void_for_the_next_process(bare_site: Any) -> None:
    site = bare_site
    site.cluster.start_head("--dashboard-port", "0")
    code = site.keys().code(time.time())
    with site.stranger() as client:
        assert client.get("/", params={"code": code}).status_code == 303
        kill(site)
        again = client.get("/", params={"code": code})
        assert again.status_code == 403 and "older than the process" in again.text
        fresh = client.get("/", params={"code": site.keys().code(time.time())})
        assert fresh.status_code == 303


def test_one_that_cannot_start_is_not_tried_all_the_time(bare_site: Any, tmp_path: Path) -> None:
    site = bare_site
    broken = tmp_path / "sitecustomize.py"
    starts = tmp_path / "starts"
    broken.write_text(
        f"import os, sys\nif 'zray.dashboard' in sys.orig_argv:\n"
        f"    open({str(starts)!r}, 'a').write('.')\n    os._exit(7)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    site.cluster.start_head("--dashboard-port", "0", environment={"PYTHONPATH": path})
    with site.connect() as waiting:
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: starts.exists() and len(starts.read_text()) >= 3, 10, "it is tried again")
        began = time.monotonic()
        before = len(starts.read_text())
        until(lambda: time.monotonic() - began > 2.0, 10, "some time has passed")
        assert len(starts.read_text()) - before <= 3
        assert "status 7" in site.cluster.status().health
        broken.unlink()
        waiting.settimeout(30)
        assert b" 200 " in waiting.recv(4096)  # it has waited all the time


def test_it_ends_with_its_head_though_it_is_stopped(bare_site: Any) -> None:
    site = bare_site
    head = site.cluster.start_head("--dashboard-port", "0")
    assert health(site) == "OK"
    process = site.process()
    process.suspend()
    head.kill()
    until(lambda: not process.is_running(), 5, "it has ended, too")


@pytest.mark.leaves_sockets
def test_it_ends_with_a_head_that_is_killed_and_the_next_has_its_port(bare_site: Any) -> None:
    site = bare_site
    head = site.cluster.start_head("--dashboard-port", "0")
    assert health(site) == "OK"
    process, port = site.process(), site.port
    with site.browser() as client:
        cookies = dict(client.cookies)
    head.kill()
    until(lambda: not process.is_running(), 5, "it has ended, too")
    site.cluster.start_head("--dashboard-port", str(port), port=-1)
    assert site.port == port
    with site.stranger(cookies=cookies) as client:
        assert client.get("/api/v1/session").status_code == 200


def test_it_ends_with_a_head_that_stops(bare_site: Any) -> None:
    site = bare_site
    head = site.cluster.start_head("--dashboard-port", "0")
    with site.script() as client, client.stream("GET", "/api/v1/stream") as answer:
        process = site.process()
        head.signal(signal.SIGTERM)
        assert "bye" in "".join(answer.iter_lines())
    assert head.wait(10) == 0
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_head_that_is_stopped_is_said_to_be_silent_and_nothing_hangs(
    bare_site: Any, stream_of: Any
) -> None:
    site = bare_site
    head = site.cluster.start_head("--dashboard-port", "0")
    with site.script() as client, client.stream("GET", "/api/v1/stream") as answer:
        stream = stream_of(answer)
        assert stream.next("overview")["up"] is True
        head.signal(signal.SIGSTOP)
        try:
            told = stream.next("overview")
            while told["up"]:
                told = stream.next("overview")
            assert told["head"]["code"] == HeadSilentError.code and told["head"]["age_s"] > 0.5
            began = time.monotonic()
            error = site.get("/api/v1/cluster", 504)["error"]
            assert time.monotonic() - began < 2.0
            assert error["code"] == HeadSilentError.code and error["age_s"] > 0.5 and error["next"]
            with site.stranger() as other:
                assert other.get("/healthz").status_code == 503
        finally:
            head.signal(signal.SIGCONT)
        while not told["up"]:
            told = stream.next("overview")
        until(lambda: site.get("/api/v1/cluster")["health"] == "OK", 20, "all is well again")


# ---- ports ---------------------------------------------------------------------------------


def test_programs_with_clusters_of_their_own_have_a_page_each() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match="the port is taken"):
            zray.init("local", num_cpus=1, dashboard_port=port)
    with zray.init("local", num_cpus=1) as context:
        host, _, port_text = context.dashboard_url.rpartition(":")
        assert host == "127.0.0.1" and context.address_info["webui_url"] == context.dashboard_url
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", int(port_text)), 5)
        info = context._participant.info
        assert WebKeys.of(info).token.startswith("zray_web_")
    with zray.init("local", num_cpus=1, include_dashboard=False) as context:
        assert context.dashboard_url == ""


def test_a_port_that_is_taken_is_said_and_the_usual_one_is_not_needed(bare_site: Any) -> None:
    site = bare_site
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=PortInUseError.code):
            site.cluster.start_head("--dashboard-port", str(port))
    site.cluster.start_head("--no-dashboard")
    assert site.url == ""
