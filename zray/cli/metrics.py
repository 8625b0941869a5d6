"""What ``zray metrics`` does: show figures as Prometheus would read them, write files for it."""

from __future__ import annotations

import sys
from pathlib import Path

from zray.cli.status import locate
from zray.errors import HeadConnectionError, ZrayError
from zray.metrics.exposition import exposed
from zray.metrics.files import Written, export
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

OK, FAILED, UNREACHABLE = 0, 1, 2


def show(addresses: list[str], node: str) -> int:
    """Print the metrics of the head and the cluster, or of a node; returns the exit code."""
    try:
        info, target = locate(addresses)
        with Operator(info, target) as operator:
            node_id = operator.locate(node, m.A_NODE).node_id if node else b""
            text, _ = exposed([operator.scrape(node_id)])
    except HeadConnectionError as error:
        print(f"zray metrics: {error}", file=sys.stderr)
        return UNREACHABLE
    except ZrayError as error:
        print(f"zray metrics: {error}", file=sys.stderr)
        return FAILED
    sys.stdout.write(text.decode())
    return OK


def write(directory: Path, dashboard: str, token_file: Path, *, force: bool) -> int:
    """Write configuration, rules and dashboard; returns the exit code."""
    try:
        written: Written = export(directory, dashboard, token_file, force=force)
    except (OSError, ValueError) as error:
        print(f"zray metrics: {error}", file=sys.stderr)
        return FAILED
    for path in written.paths:
        print(path)
    print(written.advice, file=sys.stderr)
    return OK
