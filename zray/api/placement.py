"""Options that say where tasks and actors run: in a placement group, on a node, by labels.

What there may be said is what Ray has in ``ray.util.scheduling_strategies``. Must never talk to a
cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from zray import limits
from zray.api.label_options import Selector
from zray.core import bundles, labels
from zray.ids import TASK_BYTES
from zray.protocol import messages as m
from zray.runtime.id_types import PlacementGroupID

Specs = tuple[tuple[tuple[str, float], ...], ...]


class Placement(NamedTuple):
    """In which group something runs. ``bundle``: its index; -1: any. ``captures``: so does what
    it submits; None: as its submitter's. ``specs``: of all bundles, if they are known here.

    With ``group_id`` empty it runs in none, whatever its submitter runs in.
    """

    group_id: bytes
    bundle: int = bundles.ANY
    captures: bool | None = None
    specs: Specs = ()


OUTSIDE = Placement(b"", captures=False)


class GroupHandle:
    """A placement group as options take it: its id, and its bundles if they are known here."""

    def __init__(self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None) -> None:
        self.id = id
        self.bundle_cache = bundle_cache

    @property
    def is_empty(self) -> bool:
        """Whether it stands for no group."""
        return bool(self.id.is_nil())


class PlacementGroupSchedulingStrategy:
    """Run in a bundle of a placement group, as Ray's class of that name.

    Args:
        placement_group: None: in none.
        placement_group_bundle_index: which bundle; -1: whichever has room.
        placement_group_capture_child_tasks: what it submits runs in the group as well; None: if
            that holds for its submitter.
    """

    def __init__(
        self,
        placement_group: Any,
        placement_group_bundle_index: int = bundles.ANY,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Run on one node, as Ray's class of that name.

    Args:
        node_id: hexadecimal, as in ``zray.nodes()``.
        soft: elsewhere if there is no such node, or it never has what is needed. Otherwise it ends
            with an error then.

    Raises:
        ValueError: it cannot be the id of a node.
    """

    def __init__(
        self,
        node_id: Any,
        soft: bool,
        _spill_on_unavailable: bool = False,
        _fail_on_unavailable: bool = False,
    ) -> None:
        if _spill_on_unavailable and not soft:
            raise ValueError(
                "_spill_on_unavailable cannot be set when soft is False. Please set soft to True "
                "to use _spill_on_unavailable."
            )
        if _fail_on_unavailable and soft:
            raise ValueError(
                "_fail_on_unavailable cannot be set when soft is True. Please set soft to False to "
                "use _fail_on_unavailable."
            )
        text = node_id if isinstance(node_id, str) else node_id.hex()
        try:
            valid = len(bytes.fromhex(text)) == TASK_BYTES
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(
                f"Invalid node_id {node_id!r}. Node ID must be a valid hex string. To get a list "
                "of all nodes and their IDs in your cluster, use ray.nodes()."
            )
        self.node_id = str(text)
        self.soft = soft


class _Several:
    """``values``: of a label; at least one."""

    def __init__(self, *values: str) -> None:
        if not values:
            raise ValueError(
                f"The variadic parameter of the {type(self).__name__} operator must be a non-empty "
                f'tuple: e.g. {type(self).__name__}("value1", "value2").'
            )
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"{type(self).__name__} takes values of labels, got {values!r}")
        self.values = list(values)


class In(_Several):
    """The label has one of these values."""

    def selects(self) -> str:
        """As the value of a selector."""
        return f"in({', '.join(self.values)})"


class NotIn(_Several):
    """The label has none of these values, or the node does not have it."""

    def selects(self) -> str:
        """As the value of a selector."""
        return f"!in({', '.join(self.values)})"


class Exists:
    """The node has the label."""

    def selects(self) -> str:
        """As the value of a selector."""
        return labels.ANY_VALUE


class DoesNotExist:
    """The node does not have the label."""

    def selects(self) -> str:
        """As the value of a selector."""
        return f"!{labels.ANY_VALUE}"


_OPERATORS = (In, NotIn, Exists, DoesNotExist)
Expressions = Mapping[str, In | NotIn | Exists | DoesNotExist]


class NodeLabelSchedulingStrategy:
    """Run on nodes with such labels, as Ray's class of that name.

    Args:
        hard: what a node has to have: names of labels and ``In``, ``NotIn``, ``Exists`` or
            ``DoesNotExist``.
        soft: what it should have as well, if there is such a node.

    Raises:
        ValueError: that is no such expression, or there is none.
    """

    def __init__(self, hard: Expressions, *, soft: Expressions | None = None) -> None:
        self.hard = _expressions("hard", hard)
        self.soft = _expressions("soft", soft or {})
        if not (self.hard or self.soft):
            raise ValueError(
                "The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be "
                "empty."
            )


def _expressions(which: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"The {which} parameter must be a map (e.g. "
            f'{{"key1": In("value1")}}) but got type {type(given)}.'
        )
    for name, wanted in given.items():
        if not isinstance(name, str):
            raise ValueError(
                f"The map key of the {which} parameter must be of type str (e.g. "
                f'{{"key1": In("value1")}}) but got {name} of type {type(name)}.'
            )
        if not isinstance(wanted, _OPERATORS):
            raise ValueError(
                f"The map value for key {name} of the {which} parameter must be one of the `In`, "
                "`NotIn`, `Exists` or `DoesNotExist` operator (e.g. "
                f'{{"key1": In("value1")}}) but got {wanted} of type {type(wanted)}.'
            )
    size = sum(len(name) + len(wanted.selects()) for name, wanted in given.items())
    if size > limits.SELECTORS_CHARS_MAX:
        raise ValueError(
            f"{which} must have at most {limits.SELECTORS_CHARS_MAX} characters, got {size}"
        )
    return dict(given)


# ---- what options come to ------------------------------------------------------------------------


def strategy(option: str, value: Any) -> Any:
    """Check a scheduling strategy.

    Raises:
        ValueError, TypeError: it is none.
    """
    kinds = (
        *(PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy),
        NodeLabelSchedulingStrategy,
    )
    if isinstance(value, kinds):
        return value
    if not isinstance(value, str):
        raise TypeError(
            f"{option} must be a string or one of zray.util.scheduling_strategies, got {value!r}"
        )
    if value not in ("DEFAULT", "SPREAD"):  # both are what the head does: the emptiest nodes
        raise ValueError(f'Invalid {option} value {value}. Valid values are ["DEFAULT" | "SPREAD"]')
    return None


def selectors(chosen: Any) -> tuple[Selector, ...]:
    """Of nodes, as a strategy has it, the preferred one first."""
    if isinstance(chosen, NodeAffinitySchedulingStrategy):
        node: Selector = ((labels.NODE, chosen.node_id),)
        return (node, ()) if chosen.soft else (node,)
    if isinstance(chosen, NodeLabelSchedulingStrategy):
        hard = {name: wanted.selects() for name, wanted in chosen.hard.items()}
        both: list[Selector] = [tuple(hard.items())]
        if chosen.soft:
            soft = [(name, wanted.selects()) for name, wanted in chosen.soft.items()]
            both.insert(0, (*hard.items(), *soft))
        return tuple(both)
    return ()


def together(first: tuple[Selector, ...], others: tuple[Selector, ...]) -> tuple[Selector, ...]:
    """What both ask for; of ``first`` the preferred one counts most."""
    if not (first and others):
        return first or others
    return tuple((*one, *other) for one in first for other in others)


def placement(given: Mapping[str, Any]) -> Placement | None:
    """Where something runs whose options these are; None: they say nothing of groups.

    Raises:
        ValueError, TypeError: they cannot be that.
    """
    chosen = given.get("scheduling_strategy")
    group = given.get("placement_group", "default")
    index = given.get("placement_group_bundle_index")
    captures = given.get("placement_group_capture_child_tasks")
    if chosen is not None and group != "default":
        raise ValueError(
            "Placement groups should be specified via the scheduling_strategy option. The "
            "placement_group option is deprecated."
        )
    if isinstance(chosen, PlacementGroupSchedulingStrategy):
        group = chosen.placement_group
        index = chosen.placement_group_bundle_index
        captures = chosen.placement_group_capture_child_tasks
    if isinstance(group, str) and group == "default":
        return None
    if group is None or (isinstance(group, GroupHandle) and group.is_empty):
        return OUTSIDE
    if not isinstance(group, GroupHandle):
        raise TypeError(f"placement_group must be a placement group, got {group!r}")
    return _placement(group, bundles.ANY if index is None else index, captures)


def _placement(group: GroupHandle, index: Any, captures: Any) -> Placement:
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"placement_group_bundle_index must be a whole number, got {index!r}")
    if captures is not None and not isinstance(captures, bool):
        raise TypeError(f"placement_group_capture_child_tasks must be a bool, got {captures!r}")
    known = group.bundle_cache
    specs = () if known is None else tuple(tuple(sorted(one.items())) for one in known)
    most = len(specs) if specs else limits.BUNDLES_MAX
    if not -1 <= index < most:
        raise ValueError(
            f"placement group bundle index {index} is invalid. Valid placement group indexes: "
            f"0-{most}"
        )
    return Placement(group.id.binary(), index, captures, specs)


def check_fits(where: Placement, name: str, amounts: Sequence[tuple[str, int]]) -> None:
    """Check that a bundle can ever have what something needs.

    Raises:
        ValueError: none can.
    """
    units = limits.RESOURCE_UNIT
    of = [dict(spec) for spec in where.specs]
    chosen = of if where.bundle == bundles.ANY else of[where.bundle : where.bundle + 1]
    fits = [
        all(round(spec.get(what, 0) * units) >= amount for what, amount in amounts)
        for spec in chosen
    ]
    if of and not any(fits):
        request = {what: amount / units for what, amount in amounts}
        raise ValueError(
            f"Cannot schedule {name} with the placement group because the resource request "
            f"{request} cannot fit into any bundles for the placement group, {of}."
        )


Options = TypeVar("Options", bound=Any)


def captured(options: Options, participant: Any) -> Options:
    """The options, or those with the group of the task that submits, if it captures."""
    where: Placement | None = options.placement
    if where is None:
        around = current(participant)
        if around is None or not around.captures:
            return options
        return options._replace(placement=around._replace(bundle=bundles.ANY))  # type: ignore[no-any-return]
    if where.captures is None:
        around = current(participant)
        captures = around is not None and bool(around.captures)
        return options._replace(placement=where._replace(captures=captures))  # type: ignore[no-any-return]
    return options


def current(participant: Any) -> Placement | None:
    """Where the task or actor that asks runs; None: in no group."""
    actor = getattr(participant, "actor", None)
    made = actor.assignment if actor is not None else getattr(participant, "assignment", None)
    if made is None:
        return None
    template: m.Template | None = participant.task_inbox.templates.get(made.spec.template_id)
    if template is None:
        return None
    group_id = bundles.group_of(template.resources)
    if not group_id:
        return None
    return Placement(group_id, bundles.index_of(template.resources), template.captures)


def placed(where: Placement | None, amounts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """What something needs that needs these amounts, where it is to run."""
    if where is None or not where.group_id:
        return amounts
    return bundles.needed(amounts, where.group_id, where.bundle)
