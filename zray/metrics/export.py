"""Files to begin with: a configuration of Prometheus, alert rules, and a dashboard of Grafana."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

FILES = ("prometheus.yml", "zray.rules.yml", "zray-dashboard.json")
TOKEN = "zray.token"


def export(directory: Path, dashboard: str, token: str, *, force: bool = False) -> list[Path]:
    """Write the files, filled in; returns their paths. The token's can be read by its owner alone.

    Args:
        dashboard: where the cluster's dashboard is, as ``http://127.0.0.1:8265``.
        token: what Prometheus has to show there; empty: no file is written for it.
        force: files that are there already are replaced.

    Raises:
        ValueError: ``dashboard`` is no such address. FileExistsError: a file is there already.
    """
    parts = urlsplit(dashboard)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(
            f"{dashboard!r} is not where a dashboard may be; give it as http://HOST:PORT"
        )
    if any(sign in dashboard for sign in "\"'\\\n") or "@" in parts.netloc:
        raise ValueError(f"{dashboard!r} has signs that an address does not have")
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / TOKEN
    names = [*FILES, TOKEN] if token else [*FILES]
    present = [name for name in names if (directory / name).exists()]
    if present and not force:
        raise FileExistsError(
            f"{directory} has {', '.join(present)} already; --force replaces what is there"
        )
    values = {"@SCHEME@": parts.scheme, "@TARGET@": parts.netloc, "@TOKEN_FILE@": _quoted(path)}
    for name in FILES:
        text = resources.files("zray.metrics").joinpath("files", name).read_text("utf-8")
        for mark, value in values.items() if name == "prometheus.yml" else ():
            text = text.replace(mark, value)
        (directory / name).write_text(text, "utf-8")
    if token:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
    return [directory / name for name in names]


def _quoted(path: Path) -> str:
    """As it is between YAML's double quotes."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
