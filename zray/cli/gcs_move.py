"""``zray gcs move``: a cluster's state from one store to another, while no head runs.

Whatever interrupts it, either the source is as good as before or the target is complete, and the
same command goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from zray.cli.gcs_places import Place, batches, commit
from zray.errors import StoreError, ZrayError
from zray.store import moved
from zray.store.base import Opened, Row, Rows, Store
from zray.store.reader import Stored


def move(source: Place, target: Place) -> int:
    """Move it; returns the exit code."""
    try:
        print(_move(source, target))
    except (ZrayError, ValueError, OSError) as error:
        print(f"zray: {error}", file=sys.stderr)
        return 1
    return 0


def _move(source: Place, target: Place) -> str:
    if source.where == target.where:
        raise StoreError(f"{source.where} is where it is already")
    reader = source.reader()
    try:
        reader.identity()  # a store that is not there is not made
    finally:
        reader.close()
    left = source.store()
    opened = left.open()
    try:
        gone = moved.moved_to(opened.rows)
        if gone and gone != target.where:
            raise StoreError(f"{source.where} was moved to {gone}; move it from there")
        if rest := moved.incomplete_from(opened.rows):
            raise StoreError(f"{source.where} has only a part of {rest}; move that one")
        if opened.cluster_id is None:
            raise StoreError(f"{source.where} is of a cluster that was never begun")
        todo = target.check_key(opened.cluster_id)
        if gone:
            return f"{source.where} was moved to {gone} already; nothing was changed."
        _fill(source, opened, target)
        commit(left, moved.mark_to(target.where))
    finally:
        left.close()
    count = sum(map(len, moved.own(opened.rows).values()))
    lines = [f"Moved {count:,} records of cluster {opened.cluster_id.hex()} to {target.where}."]
    lines += [f"{source.where} is kept, and marked: no head starts with it any more."]
    lines += [f"To be done: {todo}."] if todo else []
    lines += [f"Start the head with: {target.start_command()}"]
    return "\n".join(lines)


def _fill(source: Place, opened: Opened, target: Place) -> None:
    """Make the target what the source is, of a later epoch than any before.

    Raises:
        StoreError: it cannot be written, or has what another cluster, or nobody else, has.
    """
    rows = moved.own(opened.rows)
    store, found = _open_later(target, opened.epoch)
    try:
        before = moved.own(found.rows)
        if found.cluster_id not in (None, opened.cluster_id):
            raise StoreError(
                f"{target.where} has the state of another cluster ({found.cluster_id.hex()}). "
                "Choose another data directory or --name"
            )
        marked = moved.moved_to(found.rows) or moved.incomplete_from(found.rows)
        if before and not marked:
            if before == rows:
                return  # all but the source's mark was done before
            raise StoreError(
                f"{target.where} has another state of this cluster than {source.where}, and heads "
                "may use both. Decide which one counts: `zray gcs check` shows what each has"
            )
        commit(store, moved.mark_from(source.where))
        assert opened.cluster_id is not None
        store.set_cluster_id(opened.cluster_id)
        for batch in batches(_stored(rows)):
            commit(store, batch)
        for batch in _deletions(before, rows):
            commit(store, batch)
        commit(store, moved.no_mark())
    finally:
        store.close()


def _open_later(target: Place, epoch: int) -> tuple[Store, Opened]:
    """Open it with an epoch after that one."""
    store = target.store()
    found = store.open()
    if found.epoch <= epoch:
        store.close()
        store = target.store()
        found = store.open(epoch - found.epoch)
    return store, found


def _stored(rows: Rows) -> Iterator[Stored]:
    for table, of_table in rows.items():
        for key, value in of_table.items():
            yield table, key, value


def _deletions(before: Rows, rows: Rows) -> Iterator[list[Row]]:
    """Of what an earlier stay has left there."""
    batch: list[Row] = []
    for table, key, _ in _stored(before):
        if key not in rows.get(table, {}):
            batch.append((table, key, None))
        if len(batch) == 100:
            yield batch
            batch = []
    if batch:
        yield batch
