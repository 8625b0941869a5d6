"""Two minutes of it; ``make chaos-failover MINUTES=30`` takes longer, with another seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.failover.campaign import Campaign
from tests.failover.troubles import SHORT


@pytest.mark.system
@pytest.mark.slow_limit(600)
def test_two_minutes_of_lost_leaders(zray_home: Path, tmp_path: Path) -> None:
    campaign = Campaign(zray_home, tmp_path, seed=1, spans=SHORT)
    try:
        campaign.play(85)
    finally:
        campaign.close()
