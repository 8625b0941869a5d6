"""Collective calls of actors and tasks on arrays and tensors in host memory.

Semantics: ``ray.util.collective`` of Ray 2.60 with its backend "gloo". Owns the groups of this
process. Results are written into the tensors that are given.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from zray.api.actors import get_actor, kill
from zray.api.functions import remote
from zray.api.objects import get
from zray.api.runtime_context import get_runtime_context
from zray.api.session import participant
from zray.util.collective import tensors
from zray.util.collective.group import Group
from zray.util.collective.membership import Membership
from zray.util.collective.types import Backend, ReduceOp

INIT_MS = 30_000
NAME_BYTES_MAX = 400
_groups: dict[str, Group] = {}
_changed = threading.Condition()
_changing: set[str] = set()  # groups that a thread joins or leaves
_declared: dict[str, Any] = {}  # actors that know what this driver has declared


def gloo_available() -> bool:
    """True: groups over host memory, which Ray's backend of this name has, are always there."""
    return True


def nccl_available() -> bool:
    """False: there are no groups over the memory of GPUs."""
    return False


def is_backend_available(backend: str) -> bool:
    """Whether there are groups of this backend."""
    try:
        return Backend(backend) == Backend.GLOO
    except ValueError:
        return False


def is_group_initialized(group_name: str) -> bool:
    """Whether this process is a member of a group of this name."""
    return group_name in _groups


def init_collective_group(
    world_size: int,
    rank: int,
    backend: str = Backend.GLOO,
    group_name: str = "default",
    gloo_timeout: int = INIT_MS,
) -> None:
    """Become a member of a group; returns when all have.

    Args:
        world_size: how many members there are.
        rank: which of them this process is, from 0 on.
        backend: "gloo".
        group_name: one for all members; groups of different namespaces have nothing in common.
        gloo_timeout: milliseconds to wait for the others.

    Raises:
        RuntimeError: in a driver; or this process is a member already; or the backend is not there.
        ValueError: a wrong size, rank, name or backend.
        CollectiveError: the others have not come in time.
    """
    _check_inside()
    if not 0 < len(str(group_name).encode()) <= NAME_BYTES_MAX:
        raise ValueError(
            f"group_name needs to be a text of 1 to {NAME_BYTES_MAX} bytes, got {group_name!r:.100}"
        )
    _check_backend(backend)
    if world_size <= 0 or not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size} members: ranks are from 0 to the size - 1")
    with _alone(group_name):
        if group_name in _groups:
            raise RuntimeError("Trying to initialize a group a second time.")
        _groups[group_name] = _join(group_name, rank, world_size, gloo_timeout)


def create_collective_group(
    actors: list[Any],
    world_size: int,
    ranks: list[int],
    backend: str = Backend.GLOO,
    group_name: str = "default",
    gloo_timeout: int = INIT_MS,
) -> None:
    """Declare actors as a group; each becomes a member with its first call of the group.

    The declaration ends with the program that made it, or when a member destroys the group.

    Args:
        actors: their handles; ``ranks`` says which is which. The others as of
            ``init_collective_group``.

    Raises:
        RuntimeError: there is such a declaration; or ranks and actors do not fit.
    """
    _check_backend(backend)
    with contextlib.suppress(ValueError):
        get_actor(_declaration(group_name))
        raise RuntimeError("Trying to initialize a group twice.")
    if len(ranks) != len(actors):
        raise RuntimeError(
            f"Each actor should correspond to one rank. Got '{len(ranks)}' ranks but "
            f"'{len(actors)}' actors"
        )
    if {*ranks} != {*range(len(ranks))} or world_size != len(ranks):
        raise RuntimeError(
            f"Ranks must be a permutation from 0 to '{world_size - 1}'. Got '{ranks}'."
        )
    members = {actor._actor_id.hex(): rank for actor, rank in zip(actors, ranks, strict=True)}
    options = {"name": _declaration(group_name), "num_cpus": 0}
    declared: Any = remote(_Declaration).options(**options).remote(members, gloo_timeout)
    get(declared.told.remote())
    _declared[group_name] = declared


def destroy_collective_group(group_name: str = "default") -> None:
    """Leave the group; nothing if this process is no member."""
    _check_inside()
    with _alone(group_name):
        group = _groups.pop(group_name, None)
    if group is None:
        return
    group.destroy()
    with contextlib.suppress(ValueError):
        kill(get_actor(_declaration(group_name)))


def get_rank(group_name: str = "default") -> int:
    """Which member this process is; -1: none."""
    _check_inside()
    group = _groups.get(group_name)
    return group.rank if group is not None else -1


def get_collective_group_size(group_name: str = "default") -> int:
    """How many members there are; -1: this process is none."""
    _check_inside()
    group = _groups.get(group_name)
    return group.world_size if group is not None else -1


def allreduce(tensor: Any, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """Each member's tensor becomes that of all, reduced.

    Raises:
        RuntimeError: this process is no member, or it is no tensor.
        CollectiveError: a member is gone, or makes another call.
        TypeError, ValueError: the elements cannot be reduced, or the array is read-only.
    """
    tensors.check(tensor)
    get_group_handle(group_name).allreduce(tensor, op)


def barrier(group_name: str = "default") -> None:
    """Return when all members have called it.

    Raises:
        RuntimeError, CollectiveError: as of ``allreduce``.
    """
    get_group_handle(group_name).barrier()


def reduce(
    tensor: Any, dst_rank: int = 0, group_name: str = "default", op: ReduceOp = ReduceOp.SUM
) -> None:
    """The tensor of ``dst_rank`` becomes that of all, reduced; the others' stay as they are.

    Raises:
        RuntimeError, CollectiveError, TypeError, ValueError: as of ``allreduce``.
    """
    tensors.check(tensor)
    group = get_group_handle(group_name)
    _check_rank(group, dst_rank)
    group.reduce(tensor, dst_rank, op)


def broadcast(tensor: Any, src_rank: int = 0, group_name: str = "default") -> None:
    """Each member's tensor becomes that of ``src_rank``.

    Raises:
        RuntimeError, CollectiveError, TypeError, ValueError: as of ``allreduce``.
    """
    tensors.check(tensor)
    group = get_group_handle(group_name)
    _check_rank(group, src_rank)
    group.broadcast(tensor, src_rank)


def allgather(tensor_list: list[Any], tensor: Any, group_name: str = "default") -> None:
    """Those of ``tensor_list``, one for each member, become the members' tensors.

    Raises:
        RuntimeError, CollectiveError, TypeError, ValueError: as of ``allreduce``.
    """
    tensors.check(tensor)
    tensors.check_list(tensor_list)
    group = get_group_handle(group_name)
    _check_length(group, tensor_list)
    group.allgather(tensor_list, tensor)


def reducescatter(
    tensor: Any,
    tensor_list: list[Any],
    group_name: str = "default",
    op: ReduceOp = ReduceOp.SUM,
) -> None:
    """``tensor`` becomes what all members have at this one's place in their lists, reduced.

    Raises:
        RuntimeError, CollectiveError, TypeError, ValueError: as of ``allreduce``.
    """
    tensors.check(tensor)
    tensors.check_list(tensor_list)
    group = get_group_handle(group_name)
    _check_length(group, tensor_list)
    group.reducescatter(tensor, tensor_list, op)


def send(tensor: Any, dst_rank: int, group_name: str = "default") -> None:
    """Send to a member that calls ``recv``. May return before that has it.

    Raises:
        RuntimeError, CollectiveError, TypeError: as of ``allreduce``. ValueError: a wrong rank.
    """
    tensors.check(tensor)
    group = get_group_handle(group_name)
    _check_other(group, dst_rank, "destination")
    group.send(tensor, dst_rank)


def recv(tensor: Any, src_rank: int, group_name: str = "default") -> None:
    """The tensor becomes what that member sends.

    Raises:
        RuntimeError, CollectiveError, TypeError: as of ``allreduce``. ValueError: a wrong rank.
    """
    tensors.check(tensor)
    group = get_group_handle(group_name)
    _check_other(group, src_rank, "source")
    group.recv(tensor, src_rank)


def get_group_handle(group_name: str = "default") -> Group:
    """This process's membership, with ``rank`` and ``world_size``; joins what was declared.

    Raises:
        RuntimeError: it is no member, and is not declared to be one.
    """
    _check_inside()
    group = _groups.get(group_name)
    if group is not None:
        return group
    with _alone(group_name):
        group = _groups.get(group_name)
        if group is None:
            group = _groups[group_name] = _join_declared(group_name)
    return group


@contextlib.contextmanager
def _alone(group_name: str) -> Iterator[None]:
    """One thread at a time for a group. To join one takes until all have come, and these may have
    to join another one first: so groups do not wait for each other."""
    with _changed:
        _changed.wait_for(lambda: group_name not in _changing)
        _changing.add(group_name)
    try:
        yield
    finally:
        with _changed:
            _changing.discard(group_name)
            _changed.notify_all()


def _join_declared(group_name: str) -> Group:
    try:
        members, timeout_ms = get(get_actor(_declaration(group_name)).told.remote())
        rank = members[get_runtime_context().get_actor_id()]
    except (ValueError, KeyError):
        raise RuntimeError(
            f"The collective group '{group_name}' is not initialized in the process. Call "
            "init_collective_group in each member, or create_collective_group with its actors"
        ) from None
    return _join(group_name, rank, len(members), timeout_ms)


def _join(group_name: str, rank: int, world_size: int, timeout_ms: int) -> Group:
    space = participant().namespace
    prefix = f"zray/collective/{len(space)}/{space}/{len(group_name)}/{group_name}/".encode()
    member = Membership(prefix, group_name, rank, world_size)
    member.meet(timeout_ms / 1000)
    return member.group


class _Declaration:
    """Knows the members of a group, by their actors' ids."""

    def __init__(self, members: dict[str, int], timeout_ms: int) -> None:
        self._told = members, timeout_ms

    def told(self) -> tuple[dict[str, int], int]:
        return self._told


def _declaration(group_name: str) -> str:
    return f"info_{group_name}"


def _check_inside() -> None:
    if getattr(participant(), "task_inbox", None) is None:
        raise RuntimeError("The collective APIs shall be only used inside a Ray actor or task.")


def _check_backend(backend: str) -> None:
    if not is_backend_available(Backend(backend)):
        raise RuntimeError(
            f"Backend {backend} is not available: zray's groups carry host memory; use "
            "backend='gloo'"
        )


def _check_rank(group: Group, rank: int) -> None:
    if rank < 0:
        raise ValueError(f"rank '{rank}' is negative.")
    if rank >= group.world_size:
        raise ValueError(f"rank '{rank}' must be less than world size '{group.world_size}'")


def _check_other(group: Group, rank: int, what: str) -> None:
    _check_rank(group, rank)
    if rank == group.rank:
        raise RuntimeError(f"The {what} rank '{rank}' is self.")


def _check_length(group: Group, tensor_list: list[Any]) -> None:
    if len(tensor_list) != group.world_size:
        raise RuntimeError(
            "The length of the tensor list operands must be equal to world_size: "
            f"{group.world_size}, got {len(tensor_list)}"
        )
