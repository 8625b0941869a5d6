"""``python -m tests.enemy MINUTES [SEED]``: a campaign that says each round; keeps bad logs."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.enemy.campaign import Campaign

DISK = "size=3g,mode=700"  # of its own, so that it can be filled


def main(minutes: float, seed: int) -> int:
    home = Path(tempfile.mkdtemp(prefix="zt-", dir="/tmp"))
    own_disk = os.getuid() == 0
    if own_disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "zray-enemy", str(home)], check=True)
    os.environ["ZRAY_HOME"] = str(home)
    notes = Path(tempfile.mkdtemp(prefix="zray-enemy-"))
    print(f"seed {seed}, notes in {notes}", flush=True)
    campaign = Campaign(home, notes, seed, say=lambda line: print(line, flush=True))
    try:
        campaign.play(60 * minutes)
    except AssertionError as error:
        print(error, flush=True)
        shutil.copytree(home, notes / "home", ignore=shutil.ignore_patterns("spill*"))
        print(f"notes and logs are kept in {notes}", flush=True)
        return 1
    finally:
        campaign.close()
        if own_disk:
            subprocess.run(["umount", "--lazy", str(home)], check=True)
        shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(notes)
    return 0


if __name__ == "__main__":
    given_seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    sys.exit(main(float(sys.argv[1]), given_seed))
