"""``zray metrics``: figures as Prometheus reads them, and files for it and for Grafana."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from zray.cli import options

OK, FAILED, UNREACHABLE = 0, 1, 2


@click.group()
def metrics() -> None:
    """Figures for Prometheus, and files for it and for Grafana."""


@metrics.command()
@options.address_option
@click.argument("node", required=False, default="", metavar="[NODE]")
def show(given: Sequence[Sequence[str]], node: str) -> None:
    """Print the figures of the head and the cluster, or those of NODE, as Prometheus reads them.

    Exit code 0: done; 1: there is no such node; 2: the head cannot be reached.
    """
    from zray.errors import HeadConnectionError, ZrayError

    try:
        text = _exposed(options.heads(given), node)
    except HeadConnectionError as error:
        click.echo(f"zray: {error}", err=True)
        sys.exit(UNREACHABLE)
    except ZrayError as error:
        click.echo(f"zray: {error}", err=True)
        sys.exit(FAILED)
    click.echo(text, nl=False)


def _exposed(addresses: list[str], node: str) -> str:
    from zray.cli.status import locate
    from zray.metrics.exposition import exposed
    from zray.nodes.driver.operator import Operator
    from zray.protocol import messages as m

    info, target = locate(addresses)
    with Operator(info, target) as operator:
        node_id = operator.locate(node, m.A_NODE).node_id if node else b""
        return exposed([operator.scrape(node_id)])[0].decode()


@metrics.command("export-config")
@options.address_option
@click.option(
    "--dashboard",
    metavar="URL",
    help="Where Prometheus finds the dashboard. Default: as the connection file has it.",
)
@click.option("--force", is_flag=True, help="Replace what is there already.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def export_config(
    given: Sequence[Sequence[str]], dashboard: str | None, force: bool, directory: Path
) -> None:
    """Write files to begin with into DIRECTORY: prometheus.yml, alert rules, a Grafana dashboard.

    And the token that Prometheus shows to the dashboard, which is as good as the cluster's key:
    only its owner can read that file.
    """
    from zray.cli.status import locate
    from zray.errors import ZrayError
    from zray.metrics.export import export
    from zray.runtime.web_keys import WebKeys

    try:
        info, _ = locate(options.heads(given))
        where = dashboard or info.dashboard
        if not where:
            raise ValueError("this head has no dashboard; start it without --no-dashboard")
        paths = export(directory, where, WebKeys.of(info).token, force=force)
    except (ZrayError, OSError, ValueError) as error:
        click.echo(f"zray: {error}", err=True)
        sys.exit(FAILED)
    for path in paths:
        click.echo(path)
    click.echo(
        f"Run: prometheus --config.file={directory.absolute() / 'prometheus.yml'}; "
        "import zray-dashboard.json in Grafana.",
        err=True,
    )
