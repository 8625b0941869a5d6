"""What every request passes before its route: under which name, from where, by whom, how large.

Owns what no answer may lack, as the rules that a browser keeps for a page, and for how long a
viewer that takes nothing is waited for.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zray import limits
from zray.dashboard import http_limits, pages
from zray.dashboard.problems import Problem, bad_request, problem_of, refused
from zray.dashboard.service import Service
from zray.errors import HeadConnectionError
from zray.runtime.log import Log, with_traceback
from zray.runtime.web_keys import Stamp

METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
CHANGES: Final = ("POST", "DELETE")
OPEN: Final = "/healthz"  # the one path that needs no login
CSRF_HEADER: Final = "x-zray-csrf"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
LOG_S: Final = 60.0
_LOGIN: Final = "run `zray dashboard` on a machine that has the cluster's connection file"
_PATH_MAX: Final = 2048
_CODES_MAX: Final = 10_000
_CODES_OLD_S: Final = 2 * limits.LOGIN_CODE_S  # none of before is good any more, then
_POLICY: Final = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:"),
        *("font-src 'self'", "connect-src 'self'", "frame-src 'self'", "manifest-src 'self'"),
        *("base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"),
    )
)
HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Guard:
    """Around the application."""

    def __init__(self, app: ASGIApp, service: Service, log: Log) -> None:
        self._app = app
        self._service = service
        self._log = log
        self._logged_s = -LOG_S
        self._began_s = time.monotonic()
        self._used: dict[bytes, float] = {}  # codes that have logged somebody in -> until when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        service = self._service
        service.used_s = time.monotonic()
        answer = _Answer(scope, send)
        try:
            request = _Request(scope)
            early = self._checked(request)
            if early is not None:
                await early(scope, receive, answer.send)
                return
            scope["zray.session"] = request.session
            scope["app"] = self._app  # so that what it has no route for is raised
            await self._app(scope, _Body(receive, request).receive, answer.send)
        except (TimeoutError, ClientDisconnect):
            answer.abort()
        except Exception as error:
            self._note(scope, error)
            if answer.begun:
                answer.abort()
                return
            problem = problem_of(error)
            if scope["method"] in CHANGES:  # what is left of its body need not come
                problem.headers["connection"] = "close"
            if isinstance(error, HeadConnectionError):
                problem.age_s = service.age_s()
            shown = pages.problem_page(problem) if _is_seen(scope) else problem.response()
            await shown(scope, receive, answer.send)

    def _note(self, scope: Scope, error: Exception) -> None:
        """What is nobody's fault but ours is written down, with its traceback once a minute."""
        if problem_of(error).status != 500:
            return
        now = time.monotonic()
        if now - self._logged_s >= LOG_S:
            self._logged_s = now
            self._log(f"a request failed, the rest goes on: {with_traceback(error)}")

    # ---- checks ----------------------------------------------------------------------------

    def _checked(self, request: _Request) -> Response | None:
        """Let it pass, or answer at once.

        Raises:
            Problem: it is refused.
        """
        self._check_host(request)
        origin = request.header("origin")
        if origin is not None and origin not in request.own_origins():
            raise refused("the request comes from another site", "Use this page's own address.")
        if request.method not in METHODS:
            allow = {"allow": ", ".join(METHODS)}
            text = f"there is no method {request.method[:16]!r} here"
            raise bad_request(text, 405, **allow)
        _check_path(request)
        if request.path == OPEN:
            return None
        query = request.query()
        if "token" in query:
            raise bad_request("a token does not belong into an address; say it in a header")
        if request.path == "/" and "code" in query and request.method == "GET":
            return self._log_in(query["code"][-1])
        self._identify(request)
        if request.method in CHANGES:
            self._check_change(request)
        return None

    def _check_host(self, request: _Request) -> None:
        """A page of another site whose name leads here (DNS rebinding) is no page of ours."""
        hosts = request.all("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else ""
        if name not in self._service.hosts:
            raise refused(
                "the page is not reached under this name",
                "Use 127.0.0.1 or localhost, or start the head with --dashboard-name NAME.",
                421,
            )

    def _log_in(self, code: str) -> Response:
        service, now_s = self._service, time.time()
        stamp = service.keys.read_code(code, now_s)
        text = ""
        if stamp is None:
            text = "this link is older than a minute, or of another cluster"
        elif stamp.time_s <= service.codes_after_s and self._is_new():
            text = "this link is older than the process that serves the page"
        elif stamp.number in self._used or len(self._used) >= _CODES_MAX:
            text = "this link has been used; each is good for one login"
        if text or stamp is None:
            raise refused(text, f"For a new one {_LOGIN}.")
        self._used = {one: until for one, until in self._used.items() if until > now_s}
        self._used[stamp.number] = now_s + 2 * limits.LOGIN_CODE_S
        response = RedirectResponse("/", 303, {"cache-control": "no-store"})
        cookie = service.keys.cookie(now_s)
        age = int(limits.LOGIN_S)
        how: dict[str, Any] = {"path": "/", "httponly": True, "samesite": "strict"}
        secure = service.info.dashboard.startswith("https:")
        response.set_cookie(service.cookie, cookie, age, secure=secure, **how)
        return response

    def _is_new(self) -> bool:
        """Whether codes of before this process may be good still; not by the clock.

        That may have been put back: then new codes are older than the process for long.
        """
        return time.monotonic() - self._began_s < _CODES_OLD_S

    def _identify(self, request: _Request) -> None:
        service, now_s = self._service, time.time()
        given = request.header("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            if scheme.lower() == "bearer" and service.keys.is_token(token.strip()):
                return
            raise refused("the token is not this cluster's", _TOKEN, 401)
        stamp = service.keys.read_cookie(request.cookie(service.cookie), now_s)
        if stamp is None:
            raise refused("nobody is logged in, or not any more", f"{_LOGIN}; {_TOKEN}", 401)
        request.session = stamp

    def _check_change(self, request: _Request) -> None:
        """A script that has the token is nobody's browser: no other site can make it say that."""
        is_script = request.session is None
        kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
        bare = not kind and not request.has_body() and (is_script or request.method == "DELETE")
        if kind != "application/json" and not bare:
            raise bad_request("the body must be application/json", 415)
        if request.session is None:
            return
        if request.header("origin") is None:
            raise refused("the request does not say from which site it is", "Use a browser.")
        given = request.header(CSRF_HEADER) or ""
        wanted = self._service.keys.csrf(request.session)
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            raise refused(
                "the request does not have this session's X-Zray-CSRF", "GET /api/v1/session"
            )


_TOKEN: Final = "for a script, Authorization: Bearer with what `zray dashboard --token` prints"


class _Request:
    """What is known of a request before its body."""

    def __init__(self, scope: Scope) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.session: Stamp | None = None  # of a browser; None: of a script
        self._scope = scope

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._scope["headers"] if key == wanted]

    def header(self, name: str) -> str | None:
        """The value of a header, which may be there once.

        Raises:
            Problem: it is there more than once.
        """
        found = self.all(name)
        if len(found) > 1:
            raise bad_request(f"the header {name} is there more than once")
        return found[0] if found else None

    def has_body(self) -> bool:
        """Whether anything comes after the headers."""
        length = self.header("content-length") or "0"
        return length != "0" or bool(self.all("transfer-encoding"))

    def own_origins(self) -> tuple[str, str]:
        """Those of a page of ours, under the name by which this was asked for.

        Whether that is encrypted a proxy knows.
        """
        host = self.header("host")
        return f"http://{host}", f"https://{host}"

    def raw(self) -> tuple[bytes, bytes]:
        """Path and query as they came."""
        return self._scope.get("raw_path") or b"", self._scope["query_string"]

    def query(self) -> dict[str, list[str]]:
        """What is behind the question mark.

        Raises:
            Problem: too much is.
        """
        try:
            text = self._scope["query_string"].decode("ascii")
            return parse_qs(text, keep_blank_values=True, max_num_fields=64)
        except ValueError:
            raise bad_request("the query cannot be read, or has more than 64 fields") from None

    def cookie(self, name: str) -> str:
        """Its value; empty: there is none. Those of other sites of this host may be any text."""
        return cookie_parser("; ".join(self.all("cookie"))).get(name, "")


def _is_seen(scope: Scope) -> bool:
    """Whether a person looks at the answer itself, and not a page's script, or another program."""
    fetched = [value for name, value in scope["headers"] if name == b"sec-fetch-dest"]
    return scope["path"] == "/" or fetched in ([b"document"], [b"iframe"])


def _check_path(request: _Request) -> None:
    raw, query = request.raw()
    if len(raw) + len(query) > _PATH_MAX * 4:
        raise bad_request("the address is too long", 414)
    path = unquote(request.path)  # once more: what was escaped twice is nobody's
    strange = any(ord(one) < 32 or ord(one) == 127 for one in path) or "\\" in path
    if len(path) > _PATH_MAX or strange or ".." in path.split("/") or "//" in path:
        raise bad_request("there is no such path")


def _host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case; empty: it is none."""
    name, bracket, rest = host.strip().lower().partition("]")
    if bracket:
        name = name.removeprefix("[")
        port = rest.removeprefix(":")
    else:
        name, _, port = name.partition(":")
    if port and not (port.isascii() and port.isdecimal() and len(port) < 6):
        return ""
    return name.removesuffix(".")


def own_names(host: str, names: Iterable[str], addresses: Iterable[str]) -> frozenset[str]:
    """Under which names a page is reached that listens on ``host``."""
    found = {*LOOPBACK, *names}
    try:
        found |= {*addresses} if ipaddress.ip_address(host).is_unspecified else {host}
    except ValueError:
        found.add(host)
    return frozenset(one.lower() for one in found)


class _Answer:
    """Adds what no answer may lack, and gives up where it is not taken."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._scope = scope
        self.begun = False

    async def send(self, message: Message) -> None:
        """As the server's.

        Raises:
            TimeoutError: nothing was taken for so long that nobody is there.
        """
        if message["type"] == "http.response.start":
            self.begun = True
            _add_headers(message)
        async with asyncio.timeout(http_limits.SEND_S):
            await self._send(message)

    def abort(self) -> None:
        """End the connection at once: what is left to send stays unsent."""
        end = self._scope.get("state", {}).get("abort")
        if end is not None:
            end()


def _add_headers(message: MutableMapping[str, Any]) -> None:
    headers = [*message.get("headers", ())]
    there = {name.lower() for name, _ in headers}
    for name, value in HEADERS.items():
        if name.encode() not in there:
            headers.append((name.encode(), value.encode()))
    message["headers"] = headers


class _Body:
    """A request's body, which has a bound in size and in time."""

    def __init__(self, receive: Receive, request: _Request) -> None:
        self._receive = receive
        self._left = http_limits.BODY_BYTES_MAX
        self._until = asyncio.get_running_loop().time() + http_limits.HEADER_S
        self._ended = False
        length = request.header("content-length")
        if length is not None and length.isdecimal() and int(length[:16]) > self._left:
            raise _too_large()

    async def receive(self) -> Message:
        """As the server's.

        Raises:
            Problem: it is too large, or takes too long.
        """
        if self._ended:  # what comes now is the end of the connection, whenever that is
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise bad_request("the body did not arrive in time", 408) from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large()
        self._ended = not message.get("more_body", False)
        return message


def _too_large() -> Problem:
    return bad_request(f"the body has more than {http_limits.BODY_BYTES_MAX:,} bytes", 413)
