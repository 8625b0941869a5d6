"""Tasks that a node has been sent ahead are another node's when that one has nothing to do."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import zray


def test_what_waits_behind_a_task_goes_to_another_node(connected: Any, tmp_path: Path) -> None:
    """The first task of all ends when the others have run, some of which are behind it."""

    @zray.task
    def work(awaits: list[str], leaves: str) -> str:
        while not all(map(os.path.exists, awaits)):
            time.sleep(0.001)
        if leaves:
            Path(leaves).touch()
        return zray.get_runtime_context().get_node_id()

    places = zray.get([work.remote([], "") for _ in range(40)])  # it is known to take no long time
    assert len(set(places)) == 2
    for number in range(5):
        left = [str(tmp_path / f"{number}.{place}") for place in range(20)]
        refs = [work.remote(left, ""), *(work.remote([], name) for name in left)]
        first, *others = zray.get(refs, timeout=20)
        assert set(others) - {first}
