"""``zray gcs``: back up, restore, check and move what a head keeps. Options only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zray.cli import options

if TYPE_CHECKING:
    from zray.cli.gcs_places import Place

_FILE = click.Path(dir_okay=False, path_type=Path)
_name = click.option(
    "--name",
    type=options.name,
    default="default",
    show_default=True,
    metavar="NAME",
    help="The cluster's name.",
)
_directory = click.option(
    "--data-directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="That of its head. Default: clusters/NAME in ZRAY_HOME or ~/.zray.",
)
_store = click.option(
    "--store",
    type=options.store,
    default="",
    metavar="URL",
    help="Where its heads keep their state in an etcd: that address.",
)


class _Place(click.ParamType[Any]):
    """A data directory or an etcd; what is behind it needs the cluster's name, too."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if "://" in value:
            return options.store(value)
        if Path(value).exists() and not Path(value).is_dir() and Path(value).name != "gcs.sqlite":
            self.fail(f"{value!r} is neither a data directory nor etcd://HOST:PORT", param, ctx)
        return str(value)


@click.group()
def gcs() -> None:
    """Back up, check, restore or move what a head keeps: nodes, actors, jobs, key-value pairs."""


@gcs.command()
@click.argument("path", type=_FILE, metavar="FILE")
@_directory
@_store
@_name
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def backup(path: Path, data_directory: Path | None, store: str, name: str, force: bool) -> None:
    """Write all of it to one file, as of one moment. The head may run.

    The cluster's key is not in it: keep a copy of cluster.key, too. Tasks and their results are
    not stored by a head, and so not in it.

    Exit code 0: done; 1: not possible, which is said.
    """
    from zray.cli import gcs_backup

    sys.exit(gcs_backup.save(_chosen(data_directory, store, name), path, replace=force))


@gcs.command()
@click.argument("path", type=_FILE, metavar="FILE")
@_directory
@_store
@_name
@click.option("--force", is_flag=True, help="Replace what is there; it is kept under another name.")
def restore(path: Path, data_directory: Path | None, store: str, name: str, force: bool) -> None:
    """Put back what a backup has. No head may run.

    The next head goes on from there: nodes and programs that still run accept it. What was stored
    after the backup is lost, and jobs that began after it end.

    Exit code 0: done; 1: not possible, which is said, and nothing was changed.
    """
    from zray.cli import gcs_backup

    sys.exit(gcs_backup.restore(path, _chosen(data_directory, store, name), replace=force))


@gcs.command()
@click.argument("what", required=False, metavar="[FILE|DIRECTORY|URL]")
@_name
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check(what: str | None, name: str, as_json: bool) -> None:
    """Read all of a backup, a data directory or an etcd, and say whether it is whole.

    Default: the data directory of the cluster's head on this machine, which may run.

    Exit code 0: it is; 1: it is not, or cannot be read.
    """
    from zray.cli import gcs_check, gcs_places
    from zray.errors import ZrayError

    try:
        reader = gcs_places.reader(what, name) if what else gcs_places.default(name).reader()
    except (ZrayError, ValueError, OSError) as error:
        print(f"zray: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(gcs_check.show(reader, as_json=as_json))


@gcs.command()
@click.option(
    "--from",
    "source",
    required=True,
    type=_Place(),
    metavar="PLACE",
    help="A data directory, or etcd://HOST:PORT,... of heads.",
)
@click.option("--to", "target", required=True, type=_Place(), metavar="PLACE", help="The same.")
@_name
def move(source: str, target: str, name: str) -> None:
    """Move a cluster's state from a data directory to an etcd, or back. No head may run.

    The cluster stays the same one: nodes and programs that wait for its head accept the one that is
    started with the new place. The old one is kept, and no head starts with it any more. Where this
    was interrupted, give it again.

    Exit code 0: done; 1: not possible, which is said.
    """
    from zray.cli import gcs_move, gcs_places

    try:
        places = [gcs_places.place(one, name) for one in (source, target)]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(gcs_move.move(*places))


def _chosen(data_directory: Path | None, store: str, name: str) -> Place:
    from zray.cli import gcs_places

    if store and data_directory is not None:
        raise click.UsageError("give --store or --data-directory, not both")
    try:
        if store:
            return gcs_places.EtcdPlace(store, name)
        if data_directory is not None:
            return gcs_places.DataDirectory(data_directory)
        return gcs_places.default(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
