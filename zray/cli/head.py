"""The ``zray-head`` command. Options and messages only: the head itself is `zray.nodes.head`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from zray import limits
from zray._version import __version__
from zray.cli import daemon, entry, options, supervised

PROGRAM = "zray-head"


@click.command(PROGRAM, context_settings={"max_content_width": 100})
@click.option(
    "--host",
    type=options.host,
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0: all networks.",
)
@click.option(
    "--port",
    type=options.port,
    metavar="PORT",
    default=limits.HEAD_PORT,
    show_default=True,
    help="Port to listen on; 0: any free one.",
)
@click.option(
    "--name",
    type=options.name,
    default="default",
    show_default=True,
    metavar="NAME",
    help="The cluster's name.",
)
@click.option(
    "--data-directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where its state and key are kept. Default: clusters/NAME in ZRAY_HOME or ~/.zray.",
)
@click.option(
    "--store",
    type=options.store,
    default="",
    metavar="URL",
    help="Keep its state in an etcd: etcd://H1:2379,H2:2379,H3:2379, or etcds:// with TLS and the "
    "variables ZRAY_ETCD_CA, _CERT, _KEY, _USER and _PASSWORD. Any number of heads with the same "
    "store and cluster.key are one cluster: one leads, the others stand by. Default: a file in the "
    "data directory.",
)
@click.option(
    "--adopt",
    is_flag=True,
    help="Go on with a data directory that is older than its cluster: restored from a backup. What "
    "was stored since is lost, jobs that began since end.",
)
@click.option(
    "--driver-lost-after",
    "driver_lost_after_s",
    type=options.lost_after,
    default=limits.DRIVER_LOST_S,
    show_default=True,
    metavar="SECONDS",
    help="A driver whose connection is gone for so long, and whose program may still run, has lost "
    "its job; zray.init(driver_lost_after_s=) goes before.",
)
@options.resource_options
@options.store_options
@options.import_option
@options.dashboard_options
@click.option("--detach", is_flag=True, help="Return when it leads or stands by, with pid and log.")
@click.option(
    "--supervise",
    is_flag=True,
    help="Start it again when it was killed, has crashed or does nothing any more. The pid is that "
    "of a small process that watches over it.",
)
@click.option(
    "--watchdog",
    "watchdog_s",
    type=options.Between(limits.WATCHDOG_MIN_S, limits.WATCHDOG_MAX_S),
    metavar="SECONDS",
    help="With --supervise: a head that has done nothing for so long is killed and started again."
    f"  [default: {limits.WATCHDOG_S:g}]",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def command(
    host: str,
    port: int,
    name: str,
    data_directory: Path | None,
    store: str,
    adopt: bool,
    driver_lost_after_s: float,
    dashboard_host: str,
    dashboard_port: int | None,
    dashboard_names: tuple[str, ...],
    dashboard_cert: Path | None,
    dashboard_key: Path | None,
    no_dashboard: bool,
    detach: bool,
    supervise: bool,
    watchdog_s: float | None,
    **offered: Any,
) -> None:
    """Start a cluster: its head, and a node on this machine.

    With --num-cpus 0 that node has only tasks that need no CPU.

    Runs in the foreground. Ctrl-C stops it cleanly, twice at once. A later start on the same data
    directory is the same cluster. Where another head leads, this one stands by.
    """
    daemon.check_platform(PROGRAM)
    from zray.errors import ZrayError
    from zray.nodes.head.head import serve
    from zray.nodes.options import DashboardOptions, HeadOptions, NodeOptions
    from zray.runtime import connection, service
    from zray.runtime.linux.processes import set_process_name

    options.warn_of_cpus(PROGRAM, offered["num_cpus"])
    if watchdog_s is not None and not supervise:
        raise click.UsageError("--watchdog goes with --supervise")
    if dashboard_key is not None and dashboard_cert is None:
        raise click.UsageError("--dashboard-key goes with --dashboard-cert")
    data = data_directory.absolute() if data_directory is not None else None
    chosen = HeadOptions(
        *(name, host, port, data),
        node=NodeOptions(**offered),
        adopt=adopt,
        store=store,
        driver_lost_after_s=driver_lost_after_s,
        dashboard=DashboardOptions(
            *(not no_dashboard, dashboard_host, dashboard_port, dashboard_names),
            idle_s=_dashboard_idle_s(),
            cert=str(dashboard_cert.absolute()) if dashboard_cert is not None else "",
            key=str(dashboard_key.absolute()) if dashboard_key is not None else "",
        ),
    )
    ready_fd = None
    if detach:
        ready_fd = daemon.detach(PROGRAM, lambda: connection.cluster_directory(name) / "head.log")
    else:
        daemon.hangup_is_stop()

    set_process_name(PROGRAM)
    try:
        if supervise:
            supervised.begin(chosen, watchdog_s or limits.WATCHDOG_S, ready_fd)
        supervised.refuse_another(chosen)
        service.declare()
        starter = supervised.Starter(host, ready_fd)
        serve(chosen, starter.ready, on_standby=starter.standby)
    except (ZrayError, ValueError, OSError) as error:
        daemon.fail(PROGRAM, error, ready_fd, supervised.exit_status(error))


def _dashboard_idle_s() -> float:
    """``ZRAY_DASHBOARD_IDLE_S``: without a viewer for so long its process ends."""
    text = os.environ.get("ZRAY_DASHBOARD_IDLE_S", "")
    try:
        seconds = float(text) if text else limits.DASHBOARD_IDLE_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 2**31:
        raise click.UsageError(f"ZRAY_DASHBOARD_IDLE_S must be a number above 0, not {text!r}")
    return seconds


def main() -> None:
    """Entry of the console script."""
    entry.run(command, PROGRAM)


if __name__ == "__main__":
    main()
