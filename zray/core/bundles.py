"""Names of the resources of placement groups: a bundle, once reserved, is resources of its node.

As in Ray: of a bundle with CPU its node has ``CPU_group_<index>_<group>``, and of all bundles of
the group there ``CPU_group_<group>``. So what runs in a bundle needs resources like all else.
Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Iterable

from zray import limits
from zray.core.resources import CPU, GPU, Needs
from zray.ids import TASK_BYTES

INDEX_DIGITS = 6
ANY = -1  # in place of a bundle's index
PLACE = "bundle"  # what every bundle has so much of, so that something without resources fits
PLACES = 1000 * limits.RESOURCE_UNIT
TAKEN = limits.RESOURCE_UNIT // 1000  # of that, by whatever runs there
_BETWEEN = "_group_"
_OF_CPU, _OF_GPU = CPU + _BETWEEN, GPU + _BETWEEN
_HEX = frozenset("0123456789abcdef")

PACK, SPREAD, STRICT_PACK, STRICT_SPREAD = 0, 1, 2, 3
STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


def named(name: str, group_id: bytes, index: int = ANY) -> str:
    """A resource of one bundle, or of all bundles of the group that a node has."""
    which = "" if index == ANY else f"{index}_"
    return f"{name}_group_{which}{group_id.hex()}"


def offered(amounts: Needs, group_id: bytes, index: int) -> Needs:
    """What a node has that has this bundle."""
    found = []
    for name, amount in (*amounts, (PLACE, PLACES)):
        found.append((named(name, group_id, index), amount))
        found.append((named(name, group_id), amount))
    return tuple(sorted(found))


def needed(
    amounts: Iterable[tuple[str, int]], group_id: bytes, index: int
) -> list[tuple[str, int]]:
    """What something that needs these amounts needs of a group's bundle."""
    found = []
    for name, amount in (*amounts, (PLACE, TAKEN)):
        found.append((named(name, group_id), amount))
        if index != ANY:
            found.append((named(name, group_id, index), amount))
    return sorted(found)


def plain(amounts: Iterable[tuple[str, int]]) -> Needs:
    """The inverse of ``needed``: the resources, whatever group they are of."""
    found: dict[str, int] = {}
    for name, amount in amounts:
        of = parts(name) if _BETWEEN in name else None
        if of is None:
            found[name] = amount
        elif of[0] != PLACE:
            found[of[0]] = amount
    return tuple(sorted(found.items()))


def parts(name: str) -> tuple[str, int, bytes] | None:
    """Resource, index and group of such a name; None: it is none."""
    resource, found, rest = name.rpartition(_BETWEEN)
    which, _, group = rest.rpartition("_")
    numbered = which.isascii() and which.isdigit() and len(which) <= INDEX_DIGITS
    if not found or len(group) != 2 * TASK_BYTES or not _HEX.issuperset(group):
        return None
    if rest != group and not numbered:
        return None
    return resource, int(which) if numbered else ANY, bytes.fromhex(group)


def group_of(wanted: Iterable[tuple[str, int]]) -> bytes:
    """The group in which something runs that needs this; empty: none."""
    for name, _ in wanted:
        if _BETWEEN in name and (found := parts(name)) is not None:
            return found[2]
    return b""


def index_of(wanted: Iterable[tuple[str, int]]) -> int:
    """The bundle of the group in which that runs; ANY: whichever has room."""
    for name, _ in wanted:
        if _BETWEEN in name and (found := parts(name)) is not None and found[1] != ANY:
            return found[1]
    return ANY


def is_cpu(name: str) -> bool:
    """Whether that is CPU, of a node or of a bundle."""
    return name == CPU or name.startswith(_OF_CPU)


def is_gpu(name: str) -> bool:
    """The same of GPUs."""
    return name == GPU or name.startswith(_OF_GPU)


def added(vectors: Iterable[Needs]) -> Needs:
    """What several bundles take in all; labels are had or not."""
    found: dict[str, int] = {}
    for wanted in vectors:
        for name, amount in wanted:
            found[name] = found.get(name, 0) + amount
    return tuple(sorted(found.items()))


def in_words(wanted: Iterable[tuple[str, int]]) -> str:
    """``CPU 1 in bundle 0 of placement group 1f2e3d4c``; empty: it is of no group."""
    wanted = [*wanted]
    group_id = group_of(wanted)
    if not group_id:
        return ""
    index = index_of(wanted)
    amounts: dict[str, int] = {}
    for name, amount in wanted:
        found = parts(name)
        if found is not None and found[0] != PLACE:
            amounts[found[0]] = amount
    units = limits.RESOURCE_UNIT
    texts = [f"{name} {amount / units:g}" for name, amount in sorted(amounts.items())]
    what = ", ".join(texts) or "no resources"
    where = "a bundle" if index == ANY else f"bundle {index}"
    return f"{what} in {where} of placement group {group_id.hex()[:8]}"
