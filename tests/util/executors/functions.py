"""What the tests of executors run on the cluster."""

from __future__ import annotations

import os
import time
from pathlib import Path

import zray


def square(x):
    return x * x


def nap(seconds, value=None):
    time.sleep(seconds)
    return value


def fail(*args):
    raise KeyError(*args)


def fail_at(x, at):
    if x == at:
        raise ValueError(x)
    return x


def pid(*_):
    time.sleep(0.02)
    return os.getpid()


def wait_for(path):
    """Return when the file is there."""
    deadline = time.monotonic() + 20
    while not Path(path).exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return str(path)


def note(path):
    """Add a byte to the file; how many it has."""
    with open(path, "ab") as file:
        file.write(b".")
        return file.tell()


def nested(count):
    with zray.Executor() as executor:
        return [*executor.map(square, range(count))]
