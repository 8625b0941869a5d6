"""Resource amounts in fixed point: 1 is ``limits.RESOURCE_UNIT`` units. Arithmetic only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zray import limits

Needs = tuple[tuple[str, int], ...]  # sorted by name, no zeros: the key of a scheduling class
Vector = dict[str, int]

UNLIMITED = 1 << 30
CPU = "CPU"
GPU = "GPU"
MEMORY = "memory"


def needs(amounts: Iterable[tuple[str, int]]) -> Needs:
    return tuple(sorted((name, amount) for name, amount in amounts if amount))


def is_cpu_only(wanted: Needs) -> bool:
    """Only such classes are sent ahead: holding them back from others costs nothing else."""
    return all(name == CPU for name, _ in wanted)


def slots(free: Mapping[str, int], wanted: Needs) -> int:
    """How many of ``wanted`` fit into ``free`` at once."""
    room = UNLIMITED
    for name, amount in wanted:
        room = min(room, free.get(name, 0) // amount)
    return max(room, 0)


def fits(free: Mapping[str, int], wanted: Needs) -> bool:
    return all(free.get(name, 0) >= amount for name, amount in wanted)


def take(free: Vector, wanted: Needs, times: int = 1) -> None:
    for name, amount in wanted:
        free[name] = free.get(name, 0) - amount * times


def give(free: Vector, wanted: Needs, times: int = 1) -> None:
    for name, amount in wanted:
        free[name] = free.get(name, 0) + amount * times


def in_words(wanted: Iterable[tuple[str, int]]) -> str:
    """``CPU 2, GPU 0.5``; memory in MiB."""
    parts = []
    for name, amount in wanted:
        value = amount / limits.RESOURCE_UNIT
        parts.append(f"{name} {value / 2**20:.0f} MiB" if name == MEMORY else f"{name} {value:g}")
    return ", ".join(parts) or "no resources"


def missing(total: Mapping[str, int], wanted: Needs) -> Needs:
    """The part of ``wanted`` that exceeds ``total``."""
    return tuple((name, amount) for name, amount in wanted if total.get(name, 0) < amount)
