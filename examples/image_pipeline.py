"""Learn to tell pictures apart: one array in shared memory, tasks on its parts, actors that add up.

    python examples/image_pipeline.py                    # on the cluster: handwritten digits
    python examples/image_pipeline.py --folder PICTURES  # pictures; each subfolder is a kind
    python examples/image_pipeline.py --serial           # in this process: prints the same table

Tasks need numpy. This program itself also needs scikit-learn, which brings the digits, or Pillow
to read a folder. It owns the learning and the table (stdout). Progress, times and what was copied
must never go to stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import zray

SIDE = 32  # pixels; every picture is made a square of this size
PART = 600  # pictures for one task
GROUP = 60  # pictures that a task works on at once: numpy's steps then stay in the CPU's cache
ENOUGH_BYTES = 100_000_000  # by default, pictures are copied until the array has so many
TESTED = 5  # of each kind, one picture of so many is for the test; the others are learned
VIEWS = 4  # of each picture in a copy: it is turned and shifted a little, by no more than
TURN_DEGREES, SHIFT_PIXELS = 10.0, 1.5
CELLS = 8  # along each side of a picture; the edges within one are added up

Pixels = NDArray[np.uint8]  # pictures x rows x columns
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

# All that is added up is integers: the sums are the same in whatever order the tasks end.
Sums = dict[str, Integers]
RunStep = Callable[..., Sums]  # run_step(step, *known): that step on every part, added up


class Pictures(NamedTuple):
    images: Pixels
    kinds: Integers  # of each picture: an index into names
    names: list[str]


class Part(NamedTuple):
    """What one task works on: some pictures of one copy of them."""

    start: int  # where they are in the array
    kinds: Integers
    tested: NDArray[np.bool_]  # those that are not learned
    copy: int  # each copy has its own views; the first view of copy 0 is the originals

    def of(self, images: Pixels) -> Pixels:
        return images[self.start : self.start + len(self.kinds)]


class Scale(NamedTuple):
    """How bright each pixel is in the pictures that are learned."""

    mean: Floats
    deviation: Floats


class Report(NamedTuple):
    """What a task did with the array of all pictures."""

    read: int  # bytes
    copied: int  # bytes
    node: str  # its id
    added: zray.ObjectRef[None]  # is there once the actor has added the task's sums


class Result(NamedTuple):
    scale: Scale
    centres: NDArray[np.float64]  # kinds x features
    learned: Integers  # pictures of each kind
    tested: Integers
    right: Integers


# ---- the steps: each makes sums of one part ------------------------------------------------


def measure(images: Pixels, part: Part) -> Sums:
    seen = part.of(images)[~part.tested]
    return {
        "pictures": np.array(len(seen)),
        "light": seen.sum(axis=0, dtype=np.int64),
        "squares": np.square(seen, dtype=np.uint16).sum(axis=0, dtype=np.int64),
    }


def learn(images: Pixels, part: Part, scale: Scale, count: int) -> Sums:
    kinds = part.kinds[~part.tested]
    features = describe(part.of(images)[~part.tested], part.copy, scale)
    sums = [features[:, kinds == kind].sum(axis=(0, 1)) for kind in range(count)]
    return {
        "pictures": np.array(len(kinds)),
        "learned": np.bincount(kinds, minlength=count),
        "features": np.array(sums),
    }


def classify(images: Pixels, part: Part, scale: Scale, centres: NDArray[np.float64]) -> Sums:
    """Take each picture for the kind to whose centre one of its views is nearest."""
    kinds = part.kinds[part.tested]
    features = describe(part.of(images)[part.tested], part.copy, scale)
    distances = [((features - centre) ** 2).sum(axis=2).min(axis=0) for centre in centres]
    right = np.argmin(distances, axis=0) == kinds
    return {
        "pictures": np.array(len(kinds)),
        "tested": np.bincount(kinds, minlength=len(centres)),
        "right": np.bincount(kinds[right], minlength=len(centres)),
    }


def describe(images: Pixels, copy: int, scale: Scale) -> Integers:
    """Views x pictures x features: how strong the edges are in each cell, in four directions."""
    ways = np.random.default_rng(copy).uniform(-1, 1, size=(VIEWS, 3))
    if copy == 0:
        ways[0] = 0
    groups = [images[at : at + GROUP] for at in range(0, max(len(images), 1), GROUP)]
    views = [np.concatenate([edges(turn(group, way), scale) for group in groups]) for way in ways]
    return np.array(views)


def edges(images: Floats, scale: Scale) -> Integers:
    light = (images - scale.mean) / (scale.deviation + scale.deviation.mean())
    down, right = np.gradient(light, axis=(1, 2))
    cells = [add_cells(slope.clip(min=0)) for slope in (down, -down, right, -right)]
    features = np.stack(cells, axis=1).reshape(-1, 4 * CELLS * CELLS)
    length = np.sqrt((features * features).sum(axis=1, keepdims=True))
    return np.rint(255 * features / np.maximum(length, 1e-6)).astype(np.int64)


def add_cells(images: Floats) -> Floats:
    rows = images.reshape(-1, CELLS, SIDE // CELLS, SIDE).sum(axis=2)
    cells: Floats = rows.reshape(-1, CELLS, CELLS, SIDE // CELLS).sum(axis=3)
    return cells


def turn(images: Pixels, way: NDArray[np.float64]) -> Floats:
    angle, (down, right) = np.radians(TURN_DEGREES * way[0]), SHIFT_PIXELS * way[1:]
    centre = (SIDE - 1) / 2
    rows, columns = np.mgrid[:SIDE, :SIDE] - centre
    return sample(
        images,
        rows * np.cos(angle) - columns * np.sin(angle) + centre + down,
        rows * np.sin(angle) + columns * np.cos(angle) + centre + right,
    )


def sample(images: Pixels, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Floats:
    """The pictures at these points, which lie between pixels; their edges go on for ever."""
    count, height, width = images.shape
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    top = rows.astype(np.intp).clip(max=height - 2)
    left = columns.astype(np.intp).clip(max=width - 2)
    down, right = (rows - top).astype(np.float32), (columns - left).astype(np.float32)
    flat, at = images.reshape(count, height * width), top * width + left
    upper = flat.take(at, axis=1) * (1 - right) + flat.take(at + 1, axis=1) * right
    lower = flat.take(at + width, axis=1) * (1 - right) + flat.take(at + width + 1, axis=1) * right
    mixed: Floats = upper * (1 - down) + lower * down
    return mixed


# ---- running them --------------------------------------------------------------------------


@zray.actor
class Totals:
    """Adds up the sums of one step's tasks while they run."""

    def __init__(self) -> None:
        self.sums: Sums = {}
        self.added: set[int] = set()

    def add(self, start: int, sums: Sums) -> None:
        if start not in self.added:  # a task that is retried brings its sums again
            self.added.add(start)
            for name, value in sums.items():
                self.sums[name] = self.sums.get(name, 0) + value

    def so_far(self) -> Sums:
        return self.sums


@zray.task
def work(
    images: Pixels,
    part: Part,
    totals: zray.ActorHandle[Totals],
    step: Callable[..., Sums],
    *known: Any,
) -> Report:
    added = totals.add.remote(part.start, step(images, part, *known))
    node = zray.get_runtime_context().get_node_id()
    copied = 0 if is_shared(images) else images.nbytes
    return Report(part.of(images).nbytes, copied, node, added)


def is_shared(array: NDArray[Any]) -> bool:
    """Whether it lies in memory that the node's processes share, and can only be read."""
    start = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions = line.split()[:2]
        low, high = (int(end, 16) for end in span.split("-"))
        if low <= start < high:
            inside = start + array.nbytes <= high and "memfd:zray-segment" in line
            return inside and permissions == "r--s" and not array.flags.writeable
    return False


def pipeline(run_step: RunStep, count: int) -> Result:
    """The three steps, for pictures of ``count`` kinds."""
    seen = run_step(measure)
    mean = seen["light"] / seen["pictures"]
    variance = seen["squares"] / seen["pictures"] - mean**2
    scale = Scale(mean.astype(np.float32), np.sqrt(variance.clip(min=1)).astype(np.float32))
    model = run_step(learn, scale, count)
    centres = model["features"] / (VIEWS * model["learned"][:, None])
    counts = run_step(classify, scale, centres)
    return Result(scale, centres, model["learned"], counts["tested"], counts["right"])


def run_here(pictures: Pictures, copies: int) -> Result:
    images, parts = repeated(pictures.images, copies), parts_of(pictures.kinds, copies)

    def run_step(step: Callable[..., Sums], *known: Any) -> Sums:
        totals = Totals()
        for part in parts:
            totals.add(part.start, step(images, part, *known))
        return totals.so_far()

    return pipeline(run_step, len(pictures.names))


def run_on_cluster(pictures: Pictures, copies: int, address: str | None) -> Result:
    parts = parts_of(pictures.kinds, copies)
    reports: list[Report] = []
    with zray.init(address):
        images = zray.put(repeated(pictures.images, copies))

        def run_step(step: Callable[..., Sums], *known: Any) -> Sums:
            totals = Totals.remote()
            shared = [zray.put(value) for value in (step, *known)]
            tasks = [work.remote(images, part, totals, *shared) for part in parts]
            pending = tasks
            while pending:
                _, pending = zray.wait(pending, num_returns=len(pending), timeout=0.5)
                if pending:
                    show_progress(step.__name__, zray.get(totals.so_far.remote()))
            ended = zray.get(tasks)
            zray.get([report.added for report in ended])
            reports.extend(ended)
            sums: Sums = zray.get(totals.so_far.remote())
            show_progress(step.__name__, sums)
            return sums

        result = pipeline(run_step, len(pictures.names))
    show_sharing(copies * len(pictures.images), reports)
    return result


def repeated(images: Pixels, copies: int) -> Pixels:
    return np.tile(images, (copies, 1, 1))


def parts_of(kinds: Integers, copies: int) -> list[Part]:
    tested = np.zeros(len(kinds), dtype=bool)
    for kind in np.unique(kinds):
        tested[np.flatnonzero(kinds == kind)[TESTED - 1 :: TESTED]] = True
    return [
        Part(copy * len(kinds) + at, kinds[at : at + PART], tested[at : at + PART], copy)
        for copy in range(copies)
        for at in range(0, len(kinds), PART)
    ]


def show_progress(step: str, so_far: Sums) -> None:
    """Say on stderr what the actor has added up by now."""
    pictures = int(so_far.get("pictures", 0))
    text = f"{step:<9}{pictures:>10,} pictures"
    if pictures and "light" in so_far:
        mean = so_far["light"].mean() / pictures
        deviation = np.sqrt(so_far["squares"].mean() / pictures - mean**2)
        text += f", brightness {mean:.1f} +- {deviation:.1f}"
    if pictures and "right" in so_far:
        text += f", {so_far['right'].sum() / pictures:.1%} right"
    print(text, file=sys.stderr, flush=True)


def show_sharing(pictures: int, reports: list[Report]) -> None:
    nodes = len({report.node for report in reports})
    read = sum(report.read for report in reports) / 1e6
    copied = sum(report.copied for report in reports)
    print(f"shared {pictures:,} pictures as one array on each node ({nodes}): "
          f"{len(reports):,} tasks read {read:,.1f} MB of it, {copied:,} bytes copied",
          file=sys.stderr)  # fmt: skip


# ---- pictures in, table out ----------------------------------------------------------------


def read_digits() -> Pictures:
    from sklearn.datasets import load_digits

    digits = load_digits()  # 8 x 8 pixels of 0 to 16
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    points = (np.arange(SIDE) + 0.5) * 8 / SIDE - 0.5
    images = np.rint(sample(small, *np.meshgrid(points, points, indexing="ij"))).astype(np.uint8)
    return Pictures(images, digits.target.astype(np.int64), [str(k) for k in digits.target_names])


def read_folder(folder: Path) -> Pictures:
    """All pictures below the folder; what Pillow cannot read is left out, and named on stderr."""
    from PIL import Image

    images: list[Pixels] = []
    found: list[str] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            with Image.open(path) as picture:
                grey = picture.convert("L").resize((SIDE, SIDE))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            print(f"left out: {path}: {error}", file=sys.stderr)
            continue
        images.append(np.asarray(grey))
        found.append(path.relative_to(folder).parts[0] if path.parent != folder else folder.name)
    names = sorted(set(found))
    kinds = np.array([names.index(name) for name in found], dtype=np.int64)
    return Pictures(np.array(images), kinds, names)


def print_table(pictures: Pictures, copies: int, result: Result) -> None:
    scale, learned, tested, right = result.scale, result.learned, result.tested, result.right
    print(f"{len(pictures.images):,} pictures of {len(pictures.names)} kinds, "
          f"{SIDE} x {SIDE} pixels, each {copies} times")  # fmt: skip
    print(f"  brightness {scale.mean.mean():.2f}, deviation {scale.deviation.mean():.2f}")
    model = b"".join(array.tobytes() for array in (*scale, result.centres))
    print("  model", hashlib.sha256(model).hexdigest()[:16])
    print(f"  {'kind':<20}{'learned':>12}{'tested':>12}{'right':>10}")
    rows = [*zip(pictures.names, learned, tested, right, strict=True)]
    for name, *counts in [*rows, ("all", learned.sum(), tested.sum(), right.sum())]:
        share = f"{counts[2] / counts[1]:.1%}" if counts[1] else "-"
        print(f"  {printable(name):<20}{counts[0]:>12,}{counts[1]:>12,}{share:>10}")


def printable(name: str) -> str:
    """The name with the bytes that are not UTF-8 written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn to tell pictures apart.")
    parser.add_argument("--folder", type=Path, help="of pictures; each subfolder is a kind")
    parser.add_argument("--address", help="head of the cluster (default: ZRAY_ADDRESS, else local)")
    parser.add_argument("--repeat", type=int, metavar="N", help="take each picture N times, turned "
                        "and shifted (default: until they are 100 MB)")  # fmt: skip
    parser.add_argument("--serial", action="store_true", help="run here, without a cluster")
    args = parser.parse_args()
    if args.repeat is not None and args.repeat < 1:
        parser.error("--repeat must be at least 1")
    if args.folder and not args.folder.is_dir():
        parser.error(f"no such folder: {printable(str(args.folder))}")

    try:
        pictures = read_folder(args.folder.resolve()) if args.folder else read_digits()
    except ModuleNotFoundError as error:
        package = {"sklearn": "scikit-learn", "PIL": "pillow"}.get(error.name or "", error.name)
        sys.exit(f"{error}; install it: python -m pip install {package}")
    if not len(pictures.images):
        parser.error(f"no pictures in {printable(str(args.folder))}")
    copies = args.repeat or -(-ENOUGH_BYTES // pictures.images.nbytes)

    began = time.perf_counter()
    if args.serial:
        result = run_here(pictures, copies)
    else:
        result = run_on_cluster(pictures, copies, args.address)
    print(f"{copies * len(pictures.images):,} pictures in {time.perf_counter() - began:.2f} s",
          file=sys.stderr)  # fmt: skip
    print_table(pictures, copies, result)


if __name__ == "__main__":
    main()
