"""Dask graphs on the cluster: ``dask.compute(x, scheduler=zray.util.dask.get)``.

Paths and names as ``ray.util.dask``. Importing it changes nothing in Dask.
"""

from zray.util.dask.scheduler import (
    disable_dask_on_ray,
    enable_dask_on_ray,
    get,
    ray_dask_get,
    ray_dask_get_sync,
    ray_dask_persist,
)

__all__ = [
    "disable_dask_on_ray",
    "enable_dask_on_ray",
    "get",
    "ray_dask_get",
    "ray_dask_get_sync",
    "ray_dask_persist",
]
