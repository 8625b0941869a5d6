"""``import ray`` in processes that a program has started which runs on zray."""

import importlib
import sys

from zray.compat import finder

del sys.modules["ray"]
finder.install()
importlib.import_module("ray")  # which is what is found from now on
