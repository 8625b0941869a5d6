"""How a simulated raylet builds environments: each part takes a while, and two are too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zray import limits
from zray.core.raylet.effects import BuildPart, RemovePart
from zray.core.raylet.environments import Environments
from zray.core.raylet.local_records import PoolKey
from zray.core.resources import BUILT, ENVIRONMENT
from zray.testing.processes.process import SimPeer
from zray.testing.world.errors import Violation

PART_BYTES = limits.ENVIRONMENTS_BYTES_MAX * 2 // 3


class Builds:
    """Of one raylet process, ``node``. ``environments``: its machine's, as of now; ``keys``: of the
    workers that live."""

    def __init__(
        self,
        node: SimPeer,
        environments: Callable[[], Environments],
        keys: Callable[[], Iterable[PoolKey]],
    ) -> None:
        self._node = node
        self._environments = environments
        self._keys = keys
        self._names: dict[str, str] = {}  # of environments, by the only part that each has

    def begin(self, effect: BuildPart) -> None:
        """A part is to be built."""
        node = self._node
        self._names[effect.part_id] = f"{ENVIRONMENT}{effect.part.source}"
        node.clock.after(node.world.draw(0.01, 1.5), self._built, effect.part_id)

    def _built(self, part_id: str) -> None:
        node = self._node
        if node.alive:
            self._environments().built(part_id, PART_BYTES, "place", node.clock.now)
            node.wake()

    def remove(self, effect: RemovePart) -> None:
        """A part is to be removed.

        Raises:
            Violation: a worker has it.
        """
        name = self._names.pop(effect.part_id)
        if any(key[3] == name for key in self._keys()):
            raise Violation(f"{self._node.name} removes {name}, which a worker has")

    def check_start(self, key: PoolKey) -> None:
        """A worker is about to start.

        Raises:
            Violation: its environment is not there.
        """
        if key[3].startswith(BUILT) and self._environments().prepared(key) is None:
            raise Violation(f"{self._node.name} starts a worker of {key[3]}, which is not there")
