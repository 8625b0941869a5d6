"""The messages about leases: a worker that runs the tasks of one class for one submitter.

A submitter demands, the head grants, the node's raylet picks the worker. From then on tasks and
their ends go straight between submitter and worker, in TASKS and DONE, over a socket of theirs; the
submitter keeps each task until it is answered, and decides about retries.
"""

from typing import Annotated

from zray.protocol.parts import (
    MANY,
    Amounts,
    Count,
    HeldLease,
    Id,
    Ids,
    Message,
    Name,
    TaskSpec,
    Text,
)


class Demand(Message, tag=86):
    """Submitter to head: so many tasks of a class could start now, beyond those that run.

    In absolute figures. ``finished``: tasks of the class that were ended for this submitter by
    workers leased to it, in all. ``lease_ids``: the leases of the class that it has; LEASE_ENDED
    is sent again for those that are over. ``served``: how many tasks each of them has ended.
    ``retried``: attempts beyond the first of each task, in all.
    """

    submitter: Id
    job_id: Id
    resources: Amounts
    count: Count
    finished: Count = 0
    lease_ids: Ids = b""
    served: Annotated[list[Count], MANY] = []
    retried: Count = 0


class Grant(Message, tag=87):
    """Head to raylet, raylet to worker: a worker serves this submitter from now on.

    The lease holds ``resources`` as a running task does.
    """

    lease_id: Id
    job_id: Id
    submitter: Id
    resources: Amounts


class Leased(Message, tag=88):
    """The worker waits for the submitter's connection: worker to raylet to head to submitter.

    ``machine`` as in NodeInfo; ``node``: its name.
    """

    lease: HeldLease
    machine: Name = ""
    node: Name = ""


class Revoke(Message, tag=89):
    """The lease is to end when the task that runs has ended: head to raylet to worker.

    Submitter to head: the worker cannot be reached from here, nor could others.
    """

    lease_id: Id


class LeaseEnded(Message, tag=90):
    """Worker to submitter and to raylet, raylet to head, head to submitter.

    ``text`` empty: in peace, and what the worker has not answered it has not begun. Else the
    worker died; ``text`` says how. ``begun``: tasks that it has begun under this lease. Kept by the
    raylet until ACK names its ``seq``.
    """

    lease_id: Id
    begun: Count = 0
    text: Text = ""


class Leasing(Message, tag=91):
    """Head to submitter: whether tasks of this class may wait for leases.

    If not, others wait for what such tasks need: they go by way of the head, as SUBMIT.
    """

    target: Id
    resources: Amounts
    open: bool


class CancelLeased(Message, tag=92):
    """Submitter to head to raylet: stop a task that a leased worker runs.

    ``force``: end the worker; else it is ended after the grace of a cancel.
    """

    lease_id: Id
    task_id: Id
    attempt: Count
    force: bool


class Runs(Message, tag=93):
    """Leased worker to raylet: what it prints from now on is of tasks of this name."""

    name: Name


class Made(Message, tag=94):
    """Submitter to head: how large results of leased tasks were made, so that they can be again."""

    submitter: Id
    job_id: Id
    tasks: Annotated[list[TaskSpec], MANY]


LEASE_MESSAGES: tuple[type[Message], ...] = (
    *(Demand, Grant, Leased, Revoke, LeaseEnded, Leasing, CancelLeased, Runs, Made),
)
