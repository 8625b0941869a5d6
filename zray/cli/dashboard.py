"""``zray dashboard``: a link to the page that logs a browser in, or the token for scripts."""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from collections.abc import Sequence

from zray.cli.reporting import show
from zray.cli.status import locate
from zray.core.causes import plain
from zray.errors import ZrayError
from zray.runtime.connection import ConnectionInfo
from zray.runtime.web_keys import WebKeys


def run(addresses: Sequence[str], *, browser: bool, token: bool, as_json: bool) -> int:
    """Open the page, or print what was asked for; returns the exit code."""
    try:
        info, _ = locate(addresses)
    except (ZrayError, OSError) as error:
        print(f"zray: {plain(str(error))}", file=sys.stderr)
        return 1
    keys = WebKeys.of(info)
    if token:
        if as_json:
            show({"url": info.dashboard, "token": keys.token})
        else:
            print(keys.token)
        return 0
    if not info.dashboard:
        print(
            "zray: this head was started without a dashboard; start it without --no-dashboard",
            file=sys.stderr,
        )
        return 1
    link = f"{info.dashboard}/?code={keys.code(time.time())}"
    if as_json:
        show({"url": info.dashboard, "link": link})
        return 0
    _open(info, link, browser)
    return 0


def _open(info: ConnectionInfo, link: str, browser: bool) -> None:
    """The link is as good as a password for its minute, so it is shown only where it is needed."""
    if browser and _has_browser() and webbrowser.open(link):
        print(f"Opened {info.dashboard} in a browser.")
        return
    print(f"{link}\nOpen this link within a minute; it is good for one login.")
    if info.host != os.uname().nodename:
        port = info.dashboard.rpartition(":")[2]
        print(
            f"The head is on {plain(info.host)}. From here, first: "
            f"ssh -L {port}:127.0.0.1:{port} {plain(info.host)}",
            file=sys.stderr,
        )


def _has_browser() -> bool:
    """A browser in the terminal would show little, and take the terminal."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
