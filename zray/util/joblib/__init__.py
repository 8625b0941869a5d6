"""A joblib backend: ``register_zray()``, then ``joblib.parallel_config("zray")``.

Paths and names as ``ray.util.joblib``, whose ``register_ray`` registers "ray".
"""

from __future__ import annotations

from joblib.parallel import register_parallel_backend

from zray.util.joblib.backend import ZrayBackend

__all__ = ["ZrayBackend", "register_ray", "register_zray"]


def register_zray() -> None:
    """Make "zray" a backend of joblib's in this process."""
    register_parallel_backend("zray", ZrayBackend)


def register_ray() -> None:
    """The same under the name "ray", for programs that are made for Ray."""
    register_parallel_backend("ray", ZrayBackend)
