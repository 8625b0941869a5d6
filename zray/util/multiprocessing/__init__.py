"""``Pool`` and ``JoinableQueue`` as in ``multiprocessing``, on the cluster.

Paths and names as ``ray.util.multiprocessing``.
"""

from multiprocessing import TimeoutError

from zray.util.multiprocessing.joinable_queue import JoinableQueue
from zray.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
