"""As ``ray.util.placement_group``: resources reserved together, for what shall run together.

A group's bundles are reserved all at once, each on one node, and tasks and actors run in them with
``PlacementGroupSchedulingStrategy``. https://docs.ray.io/en/latest/ray-core/scheduling/placement-group.html
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from zray import limits
from zray.api import placement
from zray.api.label_options import label_selector
from zray.api.placement import GroupHandle, PlacementGroupSchedulingStrategy
from zray.api.session import participant
from zray.core.bundles import STRATEGIES as _STRATEGIES
from zray.core.resources import GPU
from zray.errors import (
    HeadSilentError,
    PlacementGroupExistsError,
    TooManyBundlesError,
    ZrayError,
)
from zray.nodes.options import checked_text, unit
from zray.protocol import messages as m
from zray.runtime import session
from zray.runtime.id_types import PlacementGroupID

if TYPE_CHECKING:
    from zray.api.functions import RemoteFunction
    from zray.runtime.references import ObjectRef

G = TypeVar("G")

_AGAIN_S = 0.2
_EXAMPLE = 'For example: `[{"CPU": 1.0}, {"GPU": 1.0}]`.'


class PlacementGroup(GroupHandle):
    """A handle of a placement group; can be an argument of tasks. Two of one group are equal."""

    def __init__(
        self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None
    ) -> None:
        super().__init__(id, bundle_cache)

    @staticmethod
    def empty() -> PlacementGroup:
        """What stands for no group."""
        return PlacementGroup(PlacementGroupID.nil(), [])

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A reference whose value is this handle, once every bundle is reserved.

        If the group is removed before that, ``get`` raises TaskPlacementGroupRemoved.
        """
        strategy = PlacementGroupSchedulingStrategy(self)
        check = _reserved().options(num_cpus=0, scheduling_strategy=strategy)
        found: ObjectRef[PlacementGroup] = check.remote(self)
        return found

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait until every bundle is reserved; whether they are, after ``timeout_seconds`` at most.

        Raises:
            TypeError: that is no number.
            Exception: there is no such group, or not any more.
        """
        if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float):
            raise TypeError(f"timeout_seconds must be a number of seconds, got {timeout_seconds!r}")
        wanted = max(0.0, timeout_seconds)
        deadline = time.monotonic() + wanted
        while True:
            answer = participant().ask(
                lambda seq: m.AskGroups(seq, self.id.binary(), placed=wanted > 0),
                max(0.0, deadline - time.monotonic()) if wanted else 5.0,
            )
            if answer is None:
                return False
            if not answer.groups or answer.groups[0].state == m.GROUP_REMOVED:
                raise ZrayError(f"Placement group {self.id!r} does not exist.")
            if answer.groups[0].state == m.GROUP_CREATED:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _AGAIN_S))  # others here have asked more often than is answered

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The bundles, as they were asked for.

        Raises:
            HeadSilentError: they are not known here, and the head does not say.
        """
        if self.bundle_cache is None:
            groups = _ask(self.id.binary())
            self.bundle_cache = _specs(groups[0].bundles) if groups else []
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        """How many bundles there are."""
        return len(self.bundle_specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.id, self.bundle_cache)


def _bundle_reservation_check(group: G) -> G:
    return group


_check: list[RemoteFunction[Any, Any]] = []


def _reserved() -> RemoteFunction[Any, Any]:
    if not _check:
        from zray.api.functions import remote  # it pickles: loaded on first use

        _check.append(remote(_bundle_reservation_check))
    return _check[0]


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
) -> PlacementGroup:
    """Reserve bundles of resources, all or none; returns before they are reserved.

    Args:
        bundles: of each, resources and amounts, such as ``{"CPU": 1, "GPU": 0.5}``; each is
            reserved on one node.
        strategy: PACK (on as few nodes as possible), SPREAD (on as many), STRICT_PACK (on one) or
            STRICT_SPREAD (each on another).
        name: for ``get_placement_group``, in the program's namespace.
        lifetime: "detached": until it is removed; None: until the program ends, or the detached
            actor that makes it.
        bundle_label_selector: of each bundle, which labels its node has to have, as the option
            ``label_selector``.

    Raises:
        ValueError, TypeError: these cannot be a placement group, or the name is taken.
        HeadSilentError: no answer in time; the group may have been made.
        TooManyBundlesError: this program's groups have ``limits.JOB_BUNDLES_MAX`` bundles.
    """
    wanted = _checked(bundles, bundle_label_selector)
    if strategy not in _STRATEGIES:
        raise ValueError(
            f"Invalid placement group strategy {strategy}. Supported strategies are: "
            f"{set(_STRATEGIES)}."
        )
    if lifetime not in (None, "detached"):
        raise ValueError(
            "Placement group `lifetime` argument must be either `None` or 'detached'. Got "
            f"{lifetime}."
        )
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    checked_text("name", name)
    connected = participant()
    group_id = PlacementGroupID.from_random()

    def request(seq: int) -> m.CreateGroup:
        return m.CreateGroup(
            *(seq, group_id.binary(), connected.client.job_id, _STRATEGIES.index(strategy)),
            wanted,
            name,
            connected.namespace,
            lifetime == "detached",
        )

    if len(msgspec.msgpack.encode(request(0))) > limits.GROUP_BYTES_MAX:
        raise ValueError(
            "the bundles are too large for one placement group: together with their labels they "
            f"may have {limits.GROUP_BYTES_MAX} bytes"
        )
    answer = connected.ask(request, limits.CONNECT_TIMEOUT_S)
    if answer is None:
        raise HeadSilentError("the head did not say in time that the placement group was made")
    if answer.code == PlacementGroupExistsError.code:
        raise PlacementGroupExistsError(answer.text)
    if answer.code == TooManyBundlesError.code:
        raise TooManyBundlesError(answer.text)
    if answer.code:
        raise ZrayError(answer.text, code=answer.code)
    return PlacementGroup(group_id, _specs(wanted))


def _checked(given: Any, selectors: Any) -> list[m.Bundle]:
    if not isinstance(given, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(given)}.")
    if not given:
        raise ValueError(
            f"Bundles must be a non-empty list of resource dictionaries. {_EXAMPLE} Got empty list "
            "instead."
        )
    if len(given) > limits.BUNDLES_MAX:
        raise ValueError(f"bundles must be at most {limits.BUNDLES_MAX}, got {len(given)}")
    if selectors is not None and not isinstance(selectors, list):
        raise ValueError(
            f"Placement group bundle_label_selector must be a list, got {type(selectors)}."
        )
    if selectors and len(selectors) != len(given):
        raise ValueError(
            f"Invalid bundle label selector {selectors}. The length of `bundle_label_selector` "
            "should equal the length of `bundles`."
        )
    found = []
    for bundle, selector in zip(given, selectors or [{}] * len(given), strict=True):
        chosen = label_selector("bundle_label_selector", selector)
        found.append(m.Bundle(_amounts(bundle, given), [*chosen]))
    return found


def _amounts(bundle: Any, given: Any) -> list[tuple[str, int]]:
    if not isinstance(bundle, dict) or not all(isinstance(name, str) for name in bundle):
        raise ValueError(f"Bundles must be a non-empty list of resource dictionaries. {_EXAMPLE}")
    if len(bundle) > limits.RESOURCES_MAX:
        raise ValueError(f"a bundle has at most {limits.RESOURCES_MAX} resources")
    amounts = []
    for name, value in bundle.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                f"Bundles must be a non-empty list of resource dictionaries. {_EXAMPLE}"
            )
        if not name:
            raise ValueError(f"the name of a resource of a bundle must not be empty: {bundle}")
        if len(name) > limits.BUNDLE_NAME_MAX:
            raise ValueError(
                f"the name of a resource of a bundle has at most {limits.BUNDLE_NAME_MAX} "
                f"characters, got {len(name)}"
            )
        amount = unit(name, value)
        if name == GPU and amount > limits.RESOURCE_UNIT and amount % limits.RESOURCE_UNIT:
            raise ValueError(f"GPU above 1 must be a whole number in a bundle, got {value!r}")
        if amount:
            amounts.append((checked_text("the name of a resource", name), amount))
    if not amounts:
        raise ValueError(
            "Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: "
            f"{given}"
        )
    return sorted(amounts)


def _specs(found: list[m.Bundle]) -> list[dict[str, float]]:
    units = limits.RESOURCE_UNIT
    return [{name: amount / units for name, amount in one.resources} for one in found]


def _ask(group_id: bytes = b"", name: str = "", namespace: str = "") -> list[m.GroupStatus]:
    answer = participant().ask(
        lambda seq: m.AskGroups(seq, group_id, name, namespace), limits.CONNECT_TIMEOUT_S
    )
    if answer is None:
        raise HeadSilentError("the head did not say in time which placement groups there are")
    found: list[m.GroupStatus] = answer.groups
    return found


def _id_of(group: Any) -> bytes:
    if not isinstance(group, PlacementGroup):
        raise TypeError(f"that is no placement group: {group!r}")
    return group.id.binary()


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give the resources of a group back. What runs in it ends, now: tasks with a
    TaskPlacementGroupRemoved, actors with an ActorPlacementGroupRemoved.

    Raises:
        TypeError: that is no placement group.
        HeadSilentError: no answer in time; it may have been removed.
    """
    group_id = _id_of(placement_group)
    answer = participant().ask(lambda seq: m.RemoveGroup(seq, group_id), limits.CONNECT_TIMEOUT_S)
    if answer is None:
        raise HeadSilentError("the head did not say in time that the placement group was removed")


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of that name, in the program's namespace.

    Raises:
        ValueError: there is none, or there can be none of that name.
        TypeError: that is no text.
    """
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    if not isinstance(placement_group_name, str):
        raise TypeError(f"placement_group_name must be a string, got {placement_group_name!r}")
    checked_text("placement_group_name", placement_group_name)
    found = _ask(name=placement_group_name, namespace=participant().namespace)
    if not found:
        raise ValueError(f"Failed to look up placement group with name: {placement_group_name}")
    return PlacementGroup(PlacementGroupID(found[0].group_id), _specs(found[0].bundles))


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """What the cluster knows of a group, or of all, by their ids.

    Each has ``placement_group_id``, ``name``, ``bundles`` and ``bundles_to_node_id`` by index,
    ``strategy``, ``state`` (PENDING, CREATED, RESCHEDULING, REMOVED), ``stats``; and ``reason``,
    which is zray's own: which bundle finds no node, and why.

    Raises:
        TypeError: that is no placement group.
    """
    if placement_group is not None:
        found = _ask(_id_of(placement_group))
        return _entry(found[0]) if found else {}
    return {PlacementGroupID(one.group_id).hex(): _entry(one) for one in _ask()}


def _entry(one: m.GroupStatus) -> dict[str, Any]:
    states = {m.GROUP_CREATED: "FINISHED", m.GROUP_REMOVED: "REMOVED"}
    return {
        "placement_group_id": PlacementGroupID(one.group_id).hex(),
        "name": one.name,
        "bundles": dict(enumerate(_specs(one.bundles))),
        "bundles_to_node_id": {index: node.hex() for index, node in enumerate(one.nodes)},
        "strategy": _STRATEGIES[one.strategy],
        "state": m.GROUP_STATES[one.state],
        "stats": {
            "scheduling_attempt": one.rounds,
            "scheduling_state": states.get(one.state, "PENDING"),
        },
        "reason": one.reason,
    }


def get_current_placement_group() -> PlacementGroup | None:
    """The group in which the task or actor that asks runs; None: in none, or it is a driver."""
    connected = session.current()
    where = placement.current(connected) if connected is not None else None
    return PlacementGroup(PlacementGroupID(where.group_id)) if where is not None else None
