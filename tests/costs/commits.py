"""What it costs to make control records durable: SQLite, etcd with one and three members, beside.

    python -m tests.costs.commits [--records 20000] [--bytes 300]

All of them on this machine's disk. ``alone``: one record after the other, each when the one before
is durable. ``many``: as fast as a head submits them. What etcd does by itself is measured by its
own gateway, one put after the other in each of some threads.
"""

from __future__ import annotations

import argparse
import select
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.etcd_cluster import Etcd
from zray.nodes.head.elected_store import ElectedStore
from zray.store import etcd_address
from zray.store.base import Store
from zray.store.etcd_gateway import Gateway
from zray.store.sqlite import SqliteStore

ALONE = 200
THREADS = 16
BARE_S = 3.0


def await_completion(store: Store, count: int) -> None:
    done = 0
    while done < count:
        descriptor = store.fileno()
        assert descriptor is not None
        select.select([descriptor], [], [], 1.0)
        failure = store.failure()
        if failure is not None:
            raise failure
        done += len(store.completed())


def measure(store: Store, records: int, size: int) -> tuple[float, float]:
    """Seconds of one record alone (median), and records a second of many."""
    store.open()
    try:
        alone = []
        for number in range(ALONE):
            began = time.perf_counter()
            store.submit(number, [("alone", b"%d" % number, b"v" * size)])
            await_completion(store, 1)
            alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        for number in range(records):
            store.submit(number, [("many", b"%d" % number, b"v" * size)])
        await_completion(store, records)
        return statistics.median(alone), records / (time.perf_counter() - began)
    finally:
        store.close()


def bare(etcd: Etcd, size: int, threads: int) -> float:
    """Puts a second that etcd itself does, asked by so many at once."""
    counts = [0] * threads
    until = time.perf_counter() + BARE_S

    def ask(place: int) -> None:
        gateway = Gateway(etcd_address.parse(etcd.url, {}))
        while time.perf_counter() < until:
            key = b"bare-%d-%d" % (place, counts[place])
            gateway.transact([], [(key, b"v" * size)], [], time.monotonic() + 60)
            counts[place] += 1
        gateway.close()

    running = [threading.Thread(target=ask, args=(place,)) for place in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(counts) / BARE_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=300)
    given = parser.parse_args()
    print(f"{'store':24}{'one alone, ms':>16}{'many, records/s':>18}")
    with tempfile.TemporaryDirectory(prefix="zray-commits-") as folder:
        alone, many = measure(SqliteStore(Path(folder) / "data"), given.records, given.bytes)
        print(f"{'SQLite':24}{1e3 * alone:16.2f}{many:18,.0f}")
        for members in (1, 3):
            etcd = Etcd(Path(folder) / f"etcd-{members}", members)
            try:
                store = ElectedStore(etcd_address.parse(etcd.url, {}), "costs")
                alone, many = measure(store, given.records, given.bytes)
                print(f"{f'etcd, members: {members}':24}{1e3 * alone:16.2f}{many:18,.0f}")
                for threads in (1, THREADS):
                    puts = bare(etcd, given.bytes, threads)
                    own, alone = f"  itself, asked by {threads}", threads / puts
                    print(f"{own:24}{1e3 * alone:16.2f}{puts:18,.0f}")
            finally:
                etcd.close()


if __name__ == "__main__":
    main()
