"""What this process says of itself in HELLO: versions and ids. Reads the clock and entropy."""

from __future__ import annotations

import contextlib
import os
import sys

from zray._version import __version__
from zray.ids import IdSource
from zray.protocol.messages import Versions


def versions(*, pickles: bool) -> Versions:
    """``pickles``: this process exchanges pickled values, so Python's version matters."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Versions(python, __version__, installed("cloudpickle") if pickles else "")


def installed(package: str) -> str:
    """The version of a package, as ``importlib.metadata.version`` says it.

    That takes 10 ms to import, in each process of a cluster, so the names of the folders that it
    looks for are read here; what they do not tell it is asked for.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    prefix, suffix = f"{package}-", ".dist-info"
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.startswith(prefix) and name.endswith(suffix):
                    return name[len(prefix) : -len(suffix)]
    from importlib import metadata

    return metadata.version(package)


def id_source() -> IdSource:
    """Ids that no other process makes."""
    return IdSource(os.urandom(8))
