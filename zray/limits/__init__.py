"""Every bound and default, with its unit in the name. Imports nothing else.

One place to look for "how much at most"; modules never hold such numbers of their own.
"""

from __future__ import annotations

from zray.limits.running import *
from zray.limits.services import *
