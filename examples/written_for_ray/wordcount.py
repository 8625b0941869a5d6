"""Words of some texts, counted by a tree of tasks, with a slip in one of them on purpose.

A program for Ray; `zray run examples/written_for_ray/wordcount.py FILE...` runs it as it is.
"""

import sys
from collections import Counter
from pathlib import Path

import ray
import ray.exceptions


class Unreadable(Exception):
    def __init__(self, path, reason):
        super().__init__(path, reason)
        self.path, self.reason = path, reason


@ray.remote(max_retries=2)
def count(path):
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise Unreadable(path, error.strerror) from error
    return Counter(text.lower().split())


@ray.remote(num_returns=2)
def split(counts):
    """The common words, and how many others there are."""
    common = counts.most_common(3)
    return common, len(counts) - len(common)


@ray.remote
def merge(left, right):
    return left + right


def merged(refs):
    while len(refs) > 1:
        refs = [*refs[2:], merge.remote(*refs[:2])]
    return refs[0]


if __name__ == "__main__":
    paths = sys.argv[1:] or [__file__]
    with ray.init():
        counts = {path: count.remote(path) for path in paths}
        good = []
        for path, ref in counts.items():
            try:
                ray.get(ref)
                good.append(ref)
            except Unreadable as error:
                assert isinstance(error, ray.exceptions.RayTaskError)
                print(f"left out {path}: {error.reason}")
        common, others = ray.get(split.remote(merged(good)))
        print("most common:", ", ".join(word for word, _ in common))
        print("other words:", others)
