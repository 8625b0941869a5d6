"""Two minutes of an enemy; ``make enemy MINUTES=30`` takes longer, and another seed each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.enemy.campaign import Campaign
from tests.enemy.disk import own_disk


@pytest.mark.system
@pytest.mark.slow_limit(600)
def test_two_minutes_of_an_enemy(zray_home: Path, tmp_path: Path) -> None:
    with own_disk(zray_home):
        campaign = Campaign(zray_home, tmp_path, seed=1)
        try:
            campaign.play(120)
        finally:
            campaign.close()
