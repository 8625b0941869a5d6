"""``python -m tests.enemy MINUTES [SEED]``: a campaign that says each round; keeps bad logs."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.enemy.campaign import Campaign
from tests.enemy.disk import own_disk


def main(minutes: float, seed: int) -> int:
    home = Path(tempfile.mkdtemp(prefix="zt-", dir="/tmp"))
    notes = Path(tempfile.mkdtemp(prefix="zray-enemy-"))
    os.environ["ZRAY_HOME"] = str(home)
    print(f"seed {seed}, notes in {notes}", flush=True)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        if os.geteuid() == 0:
            stack.enter_context(own_disk(home))
        else:
            print("without a disk that fills up, which needs root", flush=True)
        campaign = Campaign(home, notes, seed, say=lambda line: print(line, flush=True))
        stack.callback(campaign.close)
        try:
            campaign.play(60 * minutes)
        except AssertionError as error:
            print(error, flush=True)
            shutil.copytree(home, notes / "home", ignore=shutil.ignore_patterns("spill*"))
            print(f"notes and logs are kept in {notes}", flush=True)
            return 1
    shutil.rmtree(notes)
    return 0


if __name__ == "__main__":
    given_seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    sys.exit(main(float(sys.argv[1]), given_seed))
