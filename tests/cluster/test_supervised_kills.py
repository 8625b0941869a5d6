"""A supervised head that is killed at random moments, also while it starts: nothing is lost."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.cluster import supervised_kills


@pytest.mark.slow_limit(180)
def test_work_outlives_heads_that_are_killed_at_random_moments(bare: Any) -> None:
    supervised_kills.begin(bare)
    waits = supervised_kills.play(bare, 5, random.randrange(1 << 30))
    assert max(waits) < 30, waits
