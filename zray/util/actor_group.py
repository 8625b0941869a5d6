"""Actors of one class that are called together.

Semantics: ``ray.util.actor_group`` of Ray 2.60, which calls it deprecated; ``ActorPool`` shares
work out, and a list of handles does as well as a group.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from zray.api.actors import kill
from zray.api.functions import remote
from zray.api.objects import get, wait


class ActorWrapper(NamedTuple):
    """A member. ``metadata``: what its ``get_actor_metadata`` has returned, if it has that."""

    actor: Any
    metadata: Any


class ActorGroupMethod:
    """``group.method``, to be called with ``remote``."""

    def __init__(self, actors: list[Any], name: str) -> None:
        self._actors = actors
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "ActorGroup methods cannot be called directly. Instead of running "
            f"'object.{self._name}()', try 'object.{self._name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> list[Any]:
        """A reference for each actor's result."""
        return [getattr(actor, self._name).remote(*args, **kwargs) for actor in self._actors]


class ActorGroup:
    """So many actors of a class; ``group.method.remote(x)`` calls it in each of them.

    Args:
        actor_cls: a plain class.
        num_actors: how many.
        num_cpus_per_actor, num_gpus_per_actor, resources_per_actor: what each takes.
        init_args, init_kwargs: of its constructor.

    Raises:
        ValueError: a number is negative, or there are no actors.
    """

    def __init__(
        self,
        actor_cls: type,
        num_actors: int = 1,
        num_cpus_per_actor: float = 1,
        num_gpus_per_actor: float = 0,
        resources_per_actor: dict[str, float] | None = None,
        init_args: tuple[Any, ...] | None = None,
        init_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if num_actors <= 0:
            raise ValueError(
                "The provided `num_actors` must be greater than 0. Received "
                f"num_actors={num_actors} instead."
            )
        if num_cpus_per_actor < 0 or num_gpus_per_actor < 0:
            raise ValueError(
                "The number of CPUs and GPUs per actor must not be negative. Received "
                f"num_cpus_per_actor={num_cpus_per_actor} and "
                f"num_gpus_per_actor={num_gpus_per_actor}."
            )
        self.num_actors = num_actors
        self.actors: list[ActorWrapper] = []
        self._init = init_args or (), init_kwargs or {}
        self._class: Any = remote(
            num_cpus=num_cpus_per_actor,
            num_gpus=num_gpus_per_actor,
            resources=resources_per_actor,
        )(actor_cls)
        self.start()

    def __getattr__(self, name: str) -> ActorGroupMethod:
        actors = self.__dict__.get("actors")
        if actors is None or name.startswith("__"):
            raise AttributeError(name)
        if not actors:
            raise RuntimeError("This ActorGroup has been shutdown. Please start it again.")
        return ActorGroupMethod([one.actor for one in actors], name)

    def __len__(self) -> int:
        return len(self.actors)

    def __getitem__(self, index: int) -> ActorWrapper:
        return self.actors[index]

    def start(self) -> None:
        """Make the actors, again after ``shutdown``.

        Raises:
            RuntimeError: they are there.
        """
        if self.actors:
            raise RuntimeError(
                "The actors have already been started. Please call `shutdown` first if you want "
                "to restart them."
            )
        self.add_actors(self.num_actors)

    def shutdown(self, patience_s: float = 5) -> None:
        """End the actors, after the calls made before; those that last longer are killed."""
        ends = [one.actor.__ray_terminate__.remote() for one in self.actors if patience_s > 0]
        if not ends or wait(ends, num_returns=len(ends), timeout=patience_s)[1]:
            for one in self.actors:
                kill(one.actor)
        self.actors = []

    def remove_actors(self, actor_indexes: list[int]) -> None:
        """Let those go; they end with the last handle of each."""
        self.actors = [one for number, one in enumerate(self.actors) if number not in actor_indexes]

    def add_actors(self, num_actors: int) -> None:
        """Make so many more."""
        args, kwargs = self._init
        made = [self._class.remote(*args, **kwargs) for _ in range(num_actors)]
        known = [one for one in made if "get_actor_metadata" in dir(one)]
        told = get([one.get_actor_metadata.remote() for one in known])
        metadata = told or [None] * len(made)
        self.actors += [ActorWrapper(*pair) for pair in zip(made, metadata, strict=True)]

    @property
    def actor_metadata(self) -> list[Any]:
        """What the actors have told of themselves."""
        return [one.metadata for one in self.actors]
