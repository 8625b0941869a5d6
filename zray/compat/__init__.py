"""zray in the place of Ray: programs that ``import ray`` run as they are.

``zray run script.py`` and ``python -m zray.compat script.py`` run a program so. ``install`` does it
for the process that calls it, and for the workers that run its functions.
"""

from __future__ import annotations

from zray.compat.finder import install

__all__ = ["install"]
