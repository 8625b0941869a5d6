"""``python -m tests.failover MINUTES [SEED]``: a campaign that says each round; keeps bad logs."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.failover.campaign import Campaign


def main(minutes: float, seed: int) -> int:
    home = Path(tempfile.mkdtemp(prefix="zt-", dir="/tmp"))
    notes = Path(tempfile.mkdtemp(prefix="zray-failover-"))
    print(f"notes in {notes}", flush=True)
    try:
        campaign = Campaign(home, notes, seed, say=lambda line: print(line, flush=True))
        try:
            campaign.play(60 * minutes)
        finally:
            campaign.close()
    except AssertionError as error:
        print(error, flush=True)
        for log in home.glob("*.out"):
            shutil.copy(log, notes)
        print(f"notes and logs are kept in {notes}", flush=True)
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(notes)
    return 0


if __name__ == "__main__":
    given_seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    sys.exit(main(float(sys.argv[1]), given_seed))
