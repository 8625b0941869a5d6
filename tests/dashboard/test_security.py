"""Who gets in: under which names, from which sites, with which methods, cookies and codes."""

from __future__ import annotations

import asyncio
import http.client
import time
from typing import Any

import psutil
import pytest
from starlette.responses import PlainTextResponse

import zray
from zray import limits
from zray.dashboard.guard import Guard
from zray.dashboard.service import Service
from zray.runtime.log import Log

ACTS = [("/api/v1/kill", {"subject": "nobody"}), ("/api/v1/drain", {"node": "nobody"})]


def raw(site: Any, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
    """A request as a program makes it that keeps no rule; status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body or method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def name(site: Any) -> str:
    """Of the cookie."""
    return f"zray-{site.info.cluster_id[:12]}"


def bearer(site: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {site.keys().token}"}


# ---- who -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/static/index.html",
        "/api/v1/cluster",
        "/api/v1/stream",
        "/api/version",
        "/api/v0/nodes",
        "/api/v1/openapi.json",
        "/metrics",
        "/nothing",
    ],
)
def test_without_a_login_nothing_is_told(site: Any, path: str) -> None:
    with site.stranger() as client:
        answer = client.get(path)
    assert answer.status_code == 401 and site.keys().token not in answer.text
    assert "zray dashboard" in answer.text and "Bearer" in answer.headers["www-authenticate"]


def test_health_is_open_and_says_one_word(site: Any) -> None:
    with site.stranger() as client:
        answer = client.get("/healthz")
    assert answer.status_code == 200 and answer.text in ("OK", "DEGRADED")


@pytest.mark.parametrize(
    "given", ["Bearer nonsense", "Bearer", "Basic Zm9v", "bearer zray_web_", "nonsense"]
)
def test_a_wrong_token_is_refused_though_there_is_a_cookie(site: Any, given: str) -> None:
    with site.browser() as client:
        answer = client.get("/api/v1/session", headers={"authorization": given})
    assert answer.status_code == 401


def test_a_token_in_an_address_is_refused(site: Any) -> None:
    error = site.get("/api/v1/cluster", 400, token=site.keys().token)["error"]
    assert site.keys().token not in str(error)


def test_a_code_logs_in_once_and_the_address_forgets_it(site: Any) -> None:
    code = site.keys().code(time.time())
    with site.stranger() as client:
        answer = client.get("/", params={"code": code})
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
        assert f"Max-Age={int(limits.LOGIN_S)}" in cookie
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert client.get("/").status_code == 200
        session = client.get("/api/v1/session").json()
        assert session["csrf"] and session["expires_s"] > time.time() + limits.LOGIN_S - 60
    with site.stranger() as other:
        answer = other.get("/", params={"code": code})
        assert answer.status_code == 403 and "has been used" in answer.text
        assert "set-cookie" not in answer.headers and other.get("/").status_code == 401


@pytest.mark.parametrize("age_s", [limits.LOGIN_CODE_S + 1, -limits.LOGIN_CODE_S])
def test_a_code_that_is_too_old_or_of_tomorrow_is_refused(site: Any, age_s: float) -> None:
    code = site.keys().code(time.time() - age_s)
    with site.stranger() as client:
        answer = client.get("/", params={"code": code})
    assert answer.status_code == 403 and "older than a minute" in answer.text


def test_a_clock_that_is_put_back_keeps_nobody_out_for_long(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_hour_ahead = time.time() + 3600
    service = Service(site.info, frozenset({"localhost"}), an_hour_ahead)
    guard = Guard(PlainTextResponse(""), service, Log("test"))

    def log_in() -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        query = f"code={site.keys().code(time.time())}".encode()
        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/"}
        headers = [(b"host", b"localhost")]
        asyncio.run(guard({**scope, "query_string": query, "headers": headers}, receive, send))
        return int(sent[0]["status"])

    assert log_in() == 403  # it may have been used before
    began_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began_s + 2 * limits.LOGIN_CODE_S)
    assert log_in() == 303


@pytest.mark.parametrize("code", ["", "nonsense", "%00", "A" * 100, "<script>"])
def test_what_is_no_code_is_refused(site: Any, code: str) -> None:
    with site.stranger() as client:
        answer = client.get("/", params={"code": code})
    assert answer.status_code == 403 and "<script>" not in answer.text


@pytest.mark.parametrize("cookie", ["", "nonsense", "A" * 5000, 'x"; zray=y', "\x01"])
def test_what_is_no_cookie_is_nobody(site: Any, cookie: str) -> None:
    status, _, _ = raw(site, "GET", "/api/v1/session", Cookie=f"{name(site)}={cookie}")
    assert status in (400, 401)


def test_a_cookie_that_is_too_old_is_nobody(site: Any) -> None:
    old = site.keys().cookie(time.time() - limits.LOGIN_S - 1)
    fresh = site.keys().cookie(time.time())
    for cookie, wanted in ((old, 401), (fresh, 200)):
        status, _, _ = raw(site, "GET", "/api/v1/session", Cookie=f"x=y; {name(site)}={cookie}")
        assert status == wanted


def test_cookies_of_other_sites_of_this_host_keep_nobody_out(site: Any) -> None:
    own = f"{name(site)}={site.keys().cookie(time.time())}"
    for other in (
        'a={"b": 1, "c": [2]}',
        'a="b',
        "a",
        "a b=c",
        "a[0]=/x y",
        "=",
        "a=" + "b" * 9000,
    ):
        for both in (f"{other}; {own}", f"{own}; {other}"):
            status, _, _ = raw(site, "GET", "/api/v1/session", Cookie=both)
            assert status == 200, other[:20]


# ---- from where ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        *((host, True) for host in ("127.0.0.1", "localhost", "LOCALHOST:99", "[::1]:8265")),
        ("page.example.org", True),
        *((host, False) for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost:x")),
        *((host, False) for host in ("localhost@evil.example", "[::1", "0.0.0.0", "10.0.0.1")),
    ],
)
def test_only_under_its_own_names(site: Any, host: str, passes: bool) -> None:
    for path in ("/api/v1/session", "/healthz"):
        status, _, _ = raw(site, "GET", path, Host=host, **bearer(site))
        assert status == (200 if passes else 421)


def test_two_names_at_once_are_refused(site: Any) -> None:
    with site.connect() as connection:
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
        )
        assert connection.recv(4096).split()[1] in (b"400", b"421")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS", "PUT"])
def test_other_sites_are_refused_whatever_they_do(site: Any, method: str) -> None:
    for origin in (
        "http://evil.example",
        "null",
        f"http://localhost:{site.port}",
        "https://127.0.0.1",
    ):
        status, headers, _ = raw(
            site, method, "/api/v1/kill", Origin=origin, Content_Type="application/json"
        )
        assert status == 403 and "access-control-allow-origin" not in headers


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "OPTIONS", "PUT", "TRACE", "CONNECT", "X"])
def test_other_methods_are_refused(site: Any, method: str) -> None:
    status, headers, _ = raw(site, method, "/api/v1/cluster", **bearer(site))
    here = {"GET", "HEAD"} if method == "DELETE" else {"GET", "HEAD", "POST", "DELETE"}
    assert status == 405 and {*headers["allow"].split(", ")} == here


@pytest.mark.parametrize("path", [path for path, _ in ACTS])
def test_nothing_is_changed_by_looking(site: Any, path: str) -> None:
    site.get(path, 404, subject="one", node="one")


# ---- changes -------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), ACTS)
def test_a_change_needs_the_session_s_word_and_the_page_s_own_site(
    site: Any, path: str, body: dict[str, str]
) -> None:
    origin = {"origin": site.url}
    with site.browser() as client, site.browser() as other:
        word = client.get("/api/v1/session").json()["csrf"]
        foreign = other.get("/api/v1/session").json()["csrf"]
        for headers in (
            {},
            origin,
            {"x-zray-csrf": word},
            {**origin, "x-zray-csrf": foreign},
            {**origin, "x-zray-csrf": ""},
            {"origin": "http://evil.example", "x-zray-csrf": word},
        ):
            assert client.post(path, json=body, headers=headers).status_code == 403
        right = {**origin, "x-zray-csrf": word}
        assert client.post(path, json=body, headers=right).status_code == 404
        plain = client.post(path, content=b"{}", headers={**right, "content-type": "text/plain"})
        assert plain.status_code == 415


def test_a_browser_kills_an_actor_and_a_script_drains_a_node(driven: Any) -> None:
    @zray.remote
    class Victim:
        def pid(self) -> int:
            import os

            return os.getpid()

    victim = Victim.options(name="victim").remote()
    pid = zray.get(victim.pid.remote())
    with driven.browser() as client:
        word = client.get("/api/v1/session").json()["csrf"]
        headers = {"origin": driven.url, "x-zray-csrf": word}
        answer = client.post("/api/v1/kill", json={"subject": "victim"}, headers=headers)
    assert answer.status_code == 200 and answer.json()["killed"] is True
    assert answer.json()["subject"]["kind"] == "actor"
    driven.until(lambda: not psutil.pid_exists(pid), 10, "it is dead")
    node = driven.cluster.start_node("leaves", 1)
    with driven.script() as client:
        refused = client.post("/api/v1/kill", json={"subject": "leaves"})
        assert refused.status_code == 400 and "zray drain" in refused.json()["error"]["message"]
        answer = client.post("/api/v1/drain", json={"node": "leaves", "reason": "a test"})
        assert answer.status_code == 200, answer.text
    assert node.wait(20) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"subject": 1}',
        b'{"subject": ""}',
        b'{"x": "y"}',
        b'{"subject": "' + b"x" * 1000 + b'"}',
        b"[" * 100_000,
        b'{"subject": "\\ud800"}',
        b"\xff",
    ],
)
def test_a_body_that_is_nonsense_is_refused(site: Any, body: bytes) -> None:
    headers = {**bearer(site), "Content_Type": "application/json"}
    status, _, said = raw(site, "POST", "/api/v1/kill", body, **headers)
    assert status == 400 and b"ZR-5107" in said


@pytest.mark.parametrize(
    "body",
    [
        b'{"node": "x", "deadline_s": 1' + b"0" * 400 + b"}",
        b'{"node": "x", "deadline_s": -1}',
        b'{"node": "x", "deadline_s": NaN}',
        b'{"node": "head", "reason": "\\ud800"}',
        b'{"node": "head", "reason": "' + b"x" * 501 + b'"}',
    ],
)
def test_a_drain_that_cannot_be_told_is_refused_at_once(site: Any, body: bytes) -> None:
    headers = {**bearer(site), "Content_Type": "application/json"}
    status, _, said = raw(site, "POST", "/api/v1/drain", body, **headers)
    assert status == 400 and b"ZR-5107" in said


@pytest.mark.parametrize("query", [f"offset={2**53}", f"offset=0&file_id={2**53}"])
def test_a_place_in_a_log_that_no_message_can_say_is_refused(site: Any, query: str) -> None:
    status, _, said = raw(site, "GET", f"/api/v1/logs/head?{query}", **bearer(site))
    assert status == 400 and b"ZR-5107" in said


# ---- what browsers keep --------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/session", "/nothing", "/static/nothing", "/healthz"]
)
def test_every_answer_says_what_browsers_may_not_do(site: Any, path: str) -> None:
    with site.browser() as client, site.stranger() as stranger:
        for answer in (client.get(path), stranger.get(path)):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "uvicorn" not in str(answer.headers).lower()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../service.py",
        "/static/%2e%2e/service.py",
        "/static/..%2fservice.py",
        "/static/%252e%252e/service.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/index.html%00",
        "/static/..\\service.py",
        "/api/v1/logs/..%2f..%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_out_of_the_page_s_folder(site: Any, path: str) -> None:
    status, _, body = raw(site, "GET", path, **bearer(site))
    assert status in (400, 404) and b"class Service" not in body and b"root:" not in body


def test_a_graph_may_run_its_own_script_and_reaches_nothing(driven: Any) -> None:
    @zray.remote
    def spins() -> None:
        while True:
            pass

    ref = spins.remote()
    driven.until(lambda: zray.why(ref).code in ("RUNNING", "LEASED"), 10, "it runs")
    with driven.script() as client:
        path = f"/api/v1/profile/{ref.task_id().hex()}"
        answer = client.get(path, params={"seconds": 1})
    zray.cancel(ref, force=True)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/svg+xml" and "<svg" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy and "allow-same-origin" not in policy
    assert "default-src 'none'" in policy and "connect-src" not in policy


def test_what_goes_wrong_in_a_frame_is_a_page_there(site: Any) -> None:
    with site.script() as client:
        seen = {"sec-fetch-dest": "iframe"}
        answer = client.get("/api/v1/profile/<b>nobody", headers=seen)
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/html")
    assert "<b>" not in answer.text and "frame-ancestors 'self'" in str(answer.headers)
