"""Ids and the source that makes them. Imports the standard library only.

All ids are ``bytes``. A TaskID is 8 bytes drawn once per process and an 8-byte counter, so that
making one costs no system call; an ObjectID is the TaskID of the task that makes the object and a
4-byte index (a put is a task of its own). The aliases exist to say what a parameter means.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

TaskID: TypeAlias = bytes  # 16 bytes
ObjectID: TypeAlias = bytes  # 20 bytes: TaskID + index
ProcessID: TypeAlias = bytes  # 16 bytes: a driver, worker or node
JobID: TypeAlias = bytes  # 16 bytes: the driver's ProcessID
LeaseID: TypeAlias = bytes  # 16 bytes
FunctionID: TypeAlias = bytes  # 16 bytes: digest of the pickled function
TemplateID: TypeAlias = bytes  # 16 bytes: digest of function and options

TASK_BYTES = 16
OBJECT_BYTES = 20
_INDEX = tuple(index.to_bytes(4, "big") for index in range(256))


class IdSource:
    """Makes the ids of one process from 8 injected random bytes.

    A process that forks must renew it in the child; the simulator passes seeded bytes.
    """

    def __init__(self, random_bytes: bytes) -> None:
        self.renew(random_bytes)

    def renew(self, random_bytes: bytes) -> None:
        """Make those of another process from now on."""
        if len(random_bytes) != 8:
            raise ValueError(f"an id source needs 8 random bytes, got {len(random_bytes)}")
        self._prefix = random_bytes
        self._counter = itertools.count(1)

    def task_id(self) -> TaskID:
        return self._prefix + next(self._counter).to_bytes(8, "big")

    def process_id(self) -> ProcessID:
        return self._prefix + next(self._counter).to_bytes(8, "big")

    def lease_id(self) -> LeaseID:
        return self._prefix + next(self._counter).to_bytes(8, "big")


def object_id(task_id: bytes, index: int = 0) -> ObjectID:
    """The id of a task's ``index``-th return value (0 also names a put)."""
    if index < 256:
        return task_id + _INDEX[index]
    return task_id + index.to_bytes(4, "big")


def items_of(task_id: bytes) -> TaskID:
    """What stands in place of the task in the ids of items that it yields; and the task, of that.

    An unfinished task has no objects of its id, and items are there before its end.
    """
    return task_id[:8] + bytes((task_id[8] ^ 0x80,)) + task_id[9:]


def item_id(task_id: bytes, number: int) -> ObjectID:
    """The id of the ``number``-th item that a task yields, from 1."""
    return items_of(task_id) + number.to_bytes(4, "big")


def is_item(object_id: bytes) -> bool:
    """Whether a task has yielded the object; also of what is too short for an id: no."""
    return object_id[8:9] >= b"\x80"


def origin_of(object_id: bytes) -> TaskID:
    """The task that makes the object, or yields it."""
    return items_of(object_id[:TASK_BYTES]) if is_item(object_id) else object_id[:TASK_BYTES]


def task_of(object_id: bytes) -> TaskID:
    """The task that makes the object."""
    return object_id[:TASK_BYTES]


def index_of(object_id: bytes) -> int:
    """Which of its task's objects it is."""
    return int.from_bytes(object_id[TASK_BYTES:], "big")


def split_objects(joined: bytes) -> list[ObjectID]:
    """The ids in a concatenation of ObjectIDs (the form in which lists of them travel)."""
    return [joined[start : start + OBJECT_BYTES] for start in range(0, len(joined), OBJECT_BYTES)]


def split_tasks(joined: bytes) -> list[TaskID]:
    """The ids in a concatenation of TaskIDs."""
    return [joined[start : start + TASK_BYTES] for start in range(0, len(joined), TASK_BYTES)]
