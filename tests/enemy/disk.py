"""A disk that can be filled without harm to anybody else. Needs root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BYTES = "3g"


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """For as long as this lasts the folder is a disk of its own."""
    options = ["-t", "tmpfs", "-o", f"size={BYTES},mode=700"]
    subprocess.run(["mount", *options, "zray-enemy", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
