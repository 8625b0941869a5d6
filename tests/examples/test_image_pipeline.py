"""The image pipeline: figures known beforehand, no copies, and the same table without a cluster.

It must never compare the two runs alone: both could be wrong together.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = [pytest.mark.usefixtures("with_packages"), pytest.mark.slow_limit(120)]

SIDE = 32
PERIOD = 8  # pixels from one stripe to the next
DIGITS = 1_797
DIGITS_LEARNED, DIGITS_TESTED = 1_442, 355  # of each kind, every fifth is for the test


def write_png(path: Path, rows: list[bytes]) -> None:
    """A grey picture; each row has one byte for each pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 pictures each of lying and of standing stripes, half black and half white."""
    root = tmp_path / "pictures"
    for number in range(20):
        # Every fifth is not learned. The 16 others are at each place of the period equally often.
        place = number - number // 5
        stripes = bytes(255 * ((at + place) % PERIOD < PERIOD // 2) for at in range(SIDE))
        write_png(root / "lying" / f"{number:02}.png", [bytes([s]) * SIDE for s in stripes])
        write_png(root / "standing" / "deeper" / f"{number:02}.png", [stripes] * SIDE)
    return root


def rows(table: str) -> dict[str, list[str]]:
    """Learned, tested and right, by kind."""
    found = re.findall(r"^  (\S+) +([\d,]+) +([\d,]+) +([\d.]+%|-)$", table, re.MULTILINE)
    return {kind: counts for kind, *counts in found}


def bytes_copied(stderr: str) -> int:
    said = re.search(r"([\d,]+) bytes copied", stderr)
    assert said, stderr
    return int(said[1].replace(",", ""))


def test_digits_are_told_apart_without_a_copy_and_as_in_one_process(run: Run) -> None:
    serial = run("image_pipeline.py", "--serial", "--repeat", "3")
    on_cluster = run("image_pipeline.py", "--repeat", "3")

    assert (serial.returncode, on_cluster.returncode) == (0, 0), serial.stderr + on_cluster.stderr
    assert on_cluster.stdout == serial.stdout
    found = rows(serial.stdout)
    assert [*found] == [*map(str, range(10)), "all"]
    learned, tested, right = found["all"]
    assert (learned, tested) == (f"{3 * DIGITS_LEARNED:,}", f"{3 * DIGITS_TESTED:,}")
    assert 90 < float(right.rstrip("%")) < 100
    # Three steps, each with three tasks for each copy; each step reads all of the array.
    megabytes = 3 * 3 * DIGITS * SIDE * SIDE / 1e6
    shared = f"27 tasks read {megabytes:.1f} MB of it, 0 bytes copied"
    assert shared in on_cluster.stderr
    assert re.search(r" pictures in \d+\.\d\d s$", on_cluster.stderr, re.MULTILINE)


def test_the_actors_say_how_far_it_is(run: Run) -> None:
    ended = run("image_pipeline.py", "--repeat", "3")

    assert ended.returncode == 0, ended.stderr
    for step, pictures in (
        ("measure", DIGITS_LEARNED),
        ("learn", DIGITS_LEARNED),
        ("classify", DIGITS_TESTED),
    ):
        seen = re.findall(rf"^{step} +([\d,]+) pictures", ended.stderr, re.MULTILINE)
        counts = [int(count.replace(",", "")) for count in seen]
        assert counts == sorted(counts) and counts[-1] == 3 * pictures
    assert re.search(r"brightness \d+\.\d \+- \d+\.\d", ended.stderr)


@pytest.mark.parametrize("mode", [["--serial"], []])
def test_pictures_of_a_folder(run: Run, folder: Path, mode: list[str]) -> None:
    (folder / "lying" / "notes.txt").write_text("no picture")
    whole = (folder / "lying" / "00.png").read_bytes()
    (folder / "lying" / "cut.png").write_bytes(whole[: len(whole) // 2])

    ended = run("image_pipeline.py", "--folder", folder, "--repeat", "3", *mode)

    assert ended.returncode == 0, ended.stderr
    assert "40 pictures of 2 kinds, 32 x 32 pixels, each 3 times\n" in ended.stdout
    # Each pixel is 0 in half of the pictures and 255 in the others, so both are 127.5.
    assert "  brightness 127.50, deviation 127.50\n" in ended.stdout
    assert rows(ended.stdout) == {
        "lying": ["48", "12", "100.0%"],
        "standing": ["48", "12", "100.0%"],
        "all": ["96", "24", "100.0%"],
    }
    assert "notes.txt" in ended.stderr and "cut.png" in ended.stderr
    if not mode:
        assert bytes_copied(ended.stderr) == 0


def test_few_pictures_of_one_kind(run: Run, tmp_path: Path) -> None:
    """None is left for a test, and so small an array is sent along with each task, as it says."""
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9")))
    write_png(folder / "black.png", [bytes(9)] * 5)
    write_png(folder / "white.png", [b"\xff" * 9] * 5)

    serial = run("image_pipeline.py", "--folder", folder, "--repeat", "1", "--serial")
    on_cluster = run("image_pipeline.py", "--folder", folder, "--repeat", "1")

    assert (serial.returncode, on_cluster.returncode) == (0, 0), serial.stderr + on_cluster.stderr
    assert on_cluster.stdout == serial.stdout
    assert rows(serial.stdout) == {
        "caf\\xe9": ["2", "0", "-"],
        "all": ["2", "0", "-"],
    }
    assert bytes_copied(on_cluster.stderr) == 3 * 2 * SIDE * SIDE


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--repeat", "0"], "--repeat must be at least 1"),
        (["--folder", "nowhere"], "no such folder: nowhere"),
        (["--folder", "{empty}"], "no pictures in"),
    ],
)
def test_bad_arguments_are_explained(
    run: Run, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    ended = run("image_pipeline.py", *(word.format(empty=tmp_path) for word in arguments))

    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr
