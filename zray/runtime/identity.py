"""What this process says of itself in HELLO: versions and ids. Reads the clock and entropy."""

from __future__ import annotations

import os
import sys
from importlib import metadata

from zray._version import __version__
from zray.ids import IdSource
from zray.protocol.messages import Versions


def versions(*, pickles: bool) -> Versions:
    """``pickles``: this process exchanges pickled values, so Python's version matters."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Versions(python, __version__, metadata.version("cloudpickle") if pickles else "")


def id_source() -> IdSource:
    return IdSource(os.urandom(8))
