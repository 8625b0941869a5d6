"""Resource amounts in fixed point: 1 is ``limits.RESOURCE_UNIT`` units. Arithmetic only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zray import limits

Needs = tuple[tuple[str, int], ...]  # sorted by name, no zeros: the key of a scheduling class
Vector = dict[str, int]

UNLIMITED = 1 << 30
CPU = "CPU"
HEAD_NODE = "node:__internal_head__"  # the head's own node has 1 of it
GPU = "GPU"
MEMORY = "memory"
ENDLESS = 1 << 53
LABELS = "labels "  # and selectors: what a node whose labels they select has without end
_OFFER = "offers "  # and a name: what a node that offers the name has without end
# And a digest: tasks of different environments do not share processes. It takes nothing of a node.
ENVIRONMENT = "environment "
BUILT = f"{ENVIRONMENT}built "  # of which something has to be built before
_OF_BYTES = (MEMORY, "object_store_memory")
_OF_THE_HEAD = (_OFFER, LABELS)


def needs(amounts: Iterable[tuple[str, int]], *others: str) -> Needs:
    """``others``: what a node has without end, or not at all; empty ones are left out."""
    wanted = [(name, amount) for name, amount in amounts if amount or name.startswith(ENVIRONMENT)]
    wanted += [(name, 1) for name in others if name]
    return tuple(sorted(wanted))


def offer(name: str) -> str:
    """What a task needs that runs by this name; nothing if that is empty."""
    return name and _OFFER + name


def offering(names: Iterable[str]) -> Vector:
    """What a node has that offers these names."""
    return {_OFFER + name: ENDLESS for name in names}


def countable(wanted: Iterable[tuple[str, int]]) -> Needs:
    """Without what is not counted: offers of names, labels, environments."""
    return tuple(pair for pair in at_node(wanted) if not pair[0].startswith(ENVIRONMENT))


def at_node(wanted: Iterable[tuple[str, int]]) -> Needs:
    """As a node knows its classes: without what is only for the head to look at."""
    return tuple(pair for pair in wanted if not pair[0].startswith(_OF_THE_HEAD))


def is_cpu_only(wanted: Needs) -> bool:
    """Only such classes are sent ahead: holding them back from others costs nothing else."""
    return all(name == CPU for name, _ in countable(wanted))


def slots(free: Mapping[str, int], wanted: Needs) -> int:
    """How many of ``wanted`` fit into ``free`` at once."""
    room = UNLIMITED
    for name, amount in wanted:
        if amount:  # nothing: an environment
            room = min(room, free.get(name, 0) // amount)
    return max(room, 0)


def fits(free: Mapping[str, int], wanted: Needs) -> bool:
    """Whether a node with these amounts in all, or free, has what is needed."""
    return all(free.get(name, 0) >= amount for name, amount in wanted)


def take(free: Vector, wanted: Needs, times: int = 1) -> None:
    """Count what is needed as taken."""
    for name, amount in wanted:
        free[name] = free.get(name, 0) - amount * times


def give(free: Vector, wanted: Needs, times: int = 1) -> None:
    """Count what was needed as free again."""
    for name, amount in wanted:
        free[name] = free.get(name, 0) + amount * times


def total(*parts: Vector) -> list[tuple[str, int]]:
    """Their sum, without zeros."""
    found: Vector = {}
    for part in parts:
        give(found, tuple(part.items()))
    return sorted((name, amount) for name, amount in found.items() if amount)


def in_words(wanted: Iterable[tuple[str, int]]) -> str:
    """``CPU 2, GPU 0.5``; memory in MiB; ``an offer of "name"``; ``the labels a=b``."""
    parts = []
    for name, amount in wanted:
        value = amount / limits.RESOURCE_UNIT
        if name.startswith(ENVIRONMENT):
            continue
        if name.startswith(LABELS):
            text = name.partition("\n")[0]  # then comes what it is made of
            parts.append(f"{'the' if amount else 'not the'} {text}")
        elif name.startswith(_OFFER):
            parts.append(f'{"an" if amount else "no"} offer of "{name.removeprefix(_OFFER)}"')
        elif name == MEMORY:
            parts.append(f"{name} {value / 2**20:.0f} MiB")
        else:
            parts.append(f"{name} {value:g}")
    return ", ".join(parts) or "no resources"


def missing(total: Mapping[str, int], wanted: Needs) -> Needs:
    """The part of ``wanted`` that exceeds ``total``."""
    return tuple((name, amount) for name, amount in wanted if total.get(name, 0) < amount)


def shortage(free: Mapping[str, int], total: Mapping[str, int], lacking: Needs) -> str:
    """``1 of 8 CPU free, needs 2``, of each that is lacking."""
    return ", ".join(
        f"{figure(name, max(0, free.get(name, 0)))} of {figure(name, total.get(name, 0))} {name} "
        f"free, needs {figure(name, amount)}"
        for name, amount in lacking
    )


def figure(name: str, amount: int) -> str:
    """An amount as people write it, memory in MiB."""
    value = amount / limits.RESOURCE_UNIT
    return f"{value / 2**20:,.0f} MiB" if name in _OF_BYTES else f"{value:g}"
