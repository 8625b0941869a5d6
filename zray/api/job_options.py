"""``JobConfig``: options of a program as one object, as Ray has them beside those of ``init``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zray.api import submitted_job
from zray.api.runtime_env import NOTHING, Declared, declared


class JobConfig:
    """As ``ray.job_config.JobConfig``, for ``zray.init(job_config=...)``.

    Attributes:
        runtime_env: as of ``init``, which counts if it has one.
        ray_namespace: the same of ``namespace``.
        metadata: the program's own; zray does nothing with it.
    """

    def __init__(
        self,
        jvm_options: Sequence[str] | None = None,
        code_search_path: Sequence[str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
    ) -> None:
        """
        Raises:
            TypeError, ValueError: as for ``runtime_env``; or something is asked for that zray does
                not have: Java, or actors that are detached without being told so.
        """
        if jvm_options or code_search_path:
            raise ValueError(
                "JobConfig: jvm_options and code_search_path are for Java; for modules there is "
                "runtime_env={'py_modules': [...]}"
            )
        if default_actor_lifetime != "non_detached":
            raise ValueError(
                f"JobConfig: default_actor_lifetime must be 'non_detached', got "
                f"{default_actor_lifetime!r}; say lifetime='detached' where an actor is made"
            )
        self.metadata = dict(metadata or {})
        self.ray_namespace = ray_namespace
        self.runtime_env: Mapping[str, Any] = {}
        self.set_runtime_env(runtime_env, validate=True)

    def set_runtime_env(
        self, runtime_env: Mapping[str, Any] | None, validate: bool = False
    ) -> None:
        """Replace it; with ``validate`` it is checked now, else by ``init``.

        Raises:
            TypeError, ValueError: as for ``runtime_env``.
        """
        if runtime_env is not None and validate:
            declared("runtime_env", runtime_env)
        self.runtime_env = runtime_env if runtime_env is not None else {}

    def set_ray_namespace(self, ray_namespace: str) -> None:
        """Replace it."""
        self.ray_namespace = ray_namespace

    def set_metadata(self, key: str, value: str) -> None:
        """Add to ``metadata``, or replace what is there by that name."""
        self.metadata[key] = value


def chosen(
    job_config: Any, runtime_env: Mapping[str, Any] | None, namespace: str | None
) -> tuple[Declared, str | None]:
    """What counts of ``init``'s arguments of these names: environment and namespace. A submitted
    job that has started the program has an environment, too.

    Raises:
        TypeError, ValueError: as for ``runtime_env``; ``job_config`` is no JobConfig.
    """
    if job_config is not None:
        if not isinstance(job_config, JobConfig):
            raise TypeError(f"job_config must be a JobConfig, got {job_config!r}")
        runtime_env = runtime_env if runtime_env is not None else job_config.runtime_env
        namespace = namespace or job_config.ray_namespace
    runtime_env = submitted_job.runtime_env(runtime_env)
    return NOTHING if runtime_env is None else declared("runtime_env", runtime_env), namespace
