"""What a worker does before the first code of a user's: it takes on its tasks' environment.

Each environment has workers of its own, so that is done once in a process.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time

from zray.protocol.messages import Environment
from zray.runtime import serialization

_UNKNOWN = re.compile(r"\$\{[A-Z0-9_]+\}")


def take_on(environment: Environment) -> None:
    """Set its variables. ``${NAME}`` is the value of a variable that is there, or nothing."""
    for name, value in environment.env_vars:
        os.environ[name] = _UNKNOWN.sub("", os.path.expandvars(value))
    names = {name for name, _ in environment.env_vars}  # and Python runs already:
    if "TZ" in names:
        time.tzset()
    if "PYTHONPATH" in names:
        entries = [
            os.path.abspath(one) for one in os.environ["PYTHONPATH"].split(os.pathsep) if one
        ]
        known = set(sys.path)
        sys.path[:0] = [entry for entry in entries if entry not in known]


def run_hook(environment: Environment) -> None:
    """Run what is to run first in each of its processes.

    Raises:
        Whatever that raises, or loading it.
    """
    if environment.hook:
        hook = serialization.loads_function(environment.hook)[0]
        hook()
    elif environment.hook_name:
        module, _, name = environment.hook_name.rpartition(".")
        getattr(importlib.import_module(module), name)()
