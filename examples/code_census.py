"""Count the Python code of a source tree: one task per file, and a tree of tasks that adds up.

    python examples/code_census.py [TREE]             # on the cluster (default: Python's library)
    python examples/code_census.py [TREE] --serial    # in this process: prints the same table

While it runs, an actor gathers the totals of the files that are done. It owns the counting and the
table (stdout). Progress and times must never go to stdout. The tasks open the files themselves, so
every node must see the tree at the same path.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import sysconfig
import time
import tokenize
import warnings
from collections import Counter
from typing import TypedDict

import zray

FAN_IN = 16  # results that one merge task adds up
TOP_IMPORTS = 10
INSTALLED_PACKAGES = ("site-packages", "dist-packages")


class Census(TypedDict):
    """What is known about some files; those of two sets of files can be merged."""

    totals: Counter[str]  # files, unparsable, lines, functions, classes
    imports: Counter[str]  # top-level module -> files that import it
    longest: tuple[int, str, str]  # lines, path, name of the longest function


def measure(path: str) -> Census:
    """Count one file. One that Python cannot read as source only counts as unparsable."""
    totals = Counter(files=1)
    imports: set[str] = set()
    longest = (0, "", "")
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the code under study
            lines = file.readlines()
            tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError, PermissionError):
        totals["unparsable"] = 1
        return {"totals": totals, "imports": Counter(), "longest": longest}

    totals["lines"] = len(lines)
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                totals["functions"] += 1
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                longest = max(longest, (length, path, node.name))
            case ast.ClassDef():
                totals["classes"] += 1
            case ast.Import():
                imports.update(alias.name.partition(".")[0] for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                imports.add(module.partition(".")[0])
    return {"totals": totals, "imports": Counter(imports), "longest": longest}


@zray.actor(max_restarts=-1, max_task_retries=-1)
class Progress:
    """The totals so far. Only what is shown depends on it: after a restart it counts anew."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.counted: set[str] = set()

    def add(self, path: str, totals: Counter[str]) -> None:
        if path not in self.counted:  # a task that was retried tells of its file again
            self.counted.add(path)
            self.totals.update(totals)

    def so_far(self) -> Counter[str]:
        return self.totals


@zray.task
def measure_and_tell(path: str, progress: zray.ActorHandle[Progress]) -> Census:
    """Count one file, and let the actor know; the task does not wait for it."""
    census = measure(path)
    progress.add.remote(path, census["totals"])
    return census


@zray.task
def merge(*parts: Census) -> Census:
    """Add up censuses; the order and the grouping make no difference."""
    totals: Counter[str] = Counter()
    imports: Counter[str] = Counter()
    for part in parts:
        totals.update(part["totals"])
        imports.update(part["imports"])
    longest = max(part["longest"] for part in parts)
    return {"totals": totals, "imports": imports, "longest": longest}


def count_on_cluster(paths: list[str], address: str | None) -> Census:
    """Submit the whole tree of tasks at once; refs as arguments say what waits for what."""
    with zray.init(address):
        progress = Progress.remote()
        measured = [measure_and_tell.remote(path, progress) for path in paths]
        level = measured
        while len(level) > 1:
            level = [
                merge.remote(*level[start : start + FAN_IN])
                for start in range(0, len(level), FAN_IN)
            ]
        pending, next_percent = measured, 0
        while pending:
            _, pending = zray.wait(pending, num_returns=len(pending), timeout=0.1)
            percent = 100 * (len(paths) - len(pending)) // len(paths)
            if pending and (percent >= next_percent or sys.stderr.isatty()):
                show_progress(percent, zray.get(progress.so_far.remote()))
                next_percent = percent - percent % 20 + 20
        census = zray.get(level[0])
        show_progress(100, census["totals"])
        return census


def show_progress(percent: int, totals: Counter[str]) -> None:
    """Show on stderr how far it is and the totals so far: a bar, or lines in a log."""
    text = ", ".join(f"{totals[name]:,} {name}" for name in ("files", "lines", "functions"))
    if sys.stderr.isatty():
        end = "" if percent < 100 else "\n"
        print(f"\r[{'#' * (percent // 4):.<25}] {text} ", end=end, file=sys.stderr, flush=True)
    else:
        print(f"{percent:3} %  {text}", file=sys.stderr, flush=True)


def find_files(tree: str) -> list[str]:
    """Sorted paths of the .py files below ``tree``, less hidden folders and installed packages."""
    found = []
    for folder, subfolders, names in os.walk(tree):
        subfolders[:] = [
            name for name in subfolders if name[0] != "." and name not in INSTALLED_PACKAGES
        ]
        found += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return sorted(path for path in found if os.path.isfile(path))  # a link may lead nowhere


def print_table(tree: str, census: Census) -> None:
    print("Python code under", printable(tree))
    for name in ("files", "unparsable", "lines", "functions", "classes"):
        print(f"  {name:<12}{census['totals'][name]:>12,}")
    length, path, function = census["longest"]
    if function:
        where = printable(os.path.relpath(path, tree))
        print(f"  longest function: {function}, {length:,} lines, in {where}")
    print("  most-used imports, and the files that use them:")
    by_use = sorted(census["imports"].items(), key=lambda item: (-item[1], item[0]))
    for module, files in by_use[:TOP_IMPORTS]:
        print(f"    {module:<22}{files:>8,}")


def printable(path: str) -> str:
    """The path with the bytes that are not UTF-8 written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the Python code of a source tree.")
    parser.add_argument("tree", nargs="?", default=sysconfig.get_path("stdlib"),
                        help="folder to analyse (default: %(default)s)")  # fmt: skip
    parser.add_argument("--address", help="head of the cluster (default: ZRAY_ADDRESS, else local)")
    parser.add_argument("--limit", type=int, help="analyse only the first LIMIT files")
    parser.add_argument("--serial", action="store_true", help="run here, without a cluster")
    args = parser.parse_args()
    if args.limit is not None and args.limit < 1:
        parser.error("--limit must be at least 1")

    tree = os.path.abspath(args.tree)
    paths = find_files(tree)[: args.limit]
    if not paths:
        parser.error(f"no Python files under {printable(tree)}")

    began = time.perf_counter()
    census = merge(*map(measure, paths)) if args.serial else count_on_cluster(paths, args.address)
    print(f"{len(paths):,} files in {time.perf_counter() - began:.2f} s", file=sys.stderr)
    print_table(tree, census)


if __name__ == "__main__":
    main()
