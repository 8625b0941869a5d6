"""What a submitter does for a leased task does not grow with how many others there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.client.test_far_leases import Far
from tests.core.client.test_leases import Bench, measured
from tests.core.test_step_counts import FEW, MANY, MORE, check, steps


class Near(Bench):
    """A worker of this machine."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = self.lease("w1")
        measured(self, self.worker, 0.01)

    hear = Bench.turn

    def done(self, *tasks: str) -> None:
        self.take(self.worker)
        self.ends(self.worker, *tasks)


def leased_steps(bench: Any, count: int) -> dict[str, int]:
    """With so many tasks that wait for the same worker."""
    for place in range(count):
        bench.submit(f"t{place}")
    bench.hear()
    found: dict[str, int] = {}

    def measure(what: str, action: Callable[[], object]) -> None:
        def act() -> None:
            action()
            bench.hear()

        found[what] = steps(act)

    measure("nothing", lambda: None)
    measure("submit", lambda: bench.submit("new"))
    measure("an end, and the next one", lambda: bench.done("t0"))
    measure("another", lambda: bench.done("t1"))
    measure("account", bench.leases.account)
    measure("look", lambda: bench.leases.look(0.0))
    measure("nap", lambda: bench.leases.nap_s(1 << 30))
    return found


@pytest.mark.parametrize("count", [MORE, MANY])
@pytest.mark.parametrize("bench", [Near, Far])
def test_a_leased_task(bench: Any, count: int) -> None:
    check(leased_steps(bench(), FEW), leased_steps(bench(), count))
