"""The messages about leases: a worker that runs the tasks of one class for one submitter.

A submitter demands, the head grants, the node's raylet picks the worker. From then on tasks and
their ends go straight between submitter and worker, in TASKS and DONE, over a socket of theirs; the
submitter keeps each task until it is answered, and decides about retries.
"""

from typing import Annotated

from msgspec import Struct

from zray.protocol.parts import (
    CRASHED,
    MANY,
    Amounts,
    Count,
    EndStatus,
    HeldLease,
    Id,
    IdOrNone,
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
    ``retried``: attempts beyond the first of each task, in all. ``expected``: nothing waits yet; a
    task goes by way of the head, and others may follow it. ``unfinished``: tasks of all classes, of
    which the head does not know otherwise.
    """

    submitter: Id
    job_id: Id
    resources: Amounts
    count: Count
    finished: Count = 0
    lease_ids: Ids = b""
    served: Annotated[list[Count], MANY] = []
    retried: Count = 0
    expected: bool = False
    unfinished: Count = 0


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

    ``machine`` as in NodeInfo; ``node``: its name, and ``node_id``.
    """

    lease: HeldLease
    machine: Name = ""
    node: Name = ""
    node_id: IdOrNone = b""


class Revoke(Message, tag=89):
    """The lease is to end when the task that runs has ended: head to raylet to worker.

    ``spare``: others could use it, so it ends when it has had no task for a short while. Submitter
    to head: the worker cannot be reached from here, nor could others.
    """

    lease_id: Id
    spare: bool = False


class LeaseEnded(Message, tag=90):
    """Worker to submitter and to raylet, raylet to head, head to submitter.

    ``text`` empty: in peace, and what the worker has not answered it has not begun. Else the
    worker died; ``text`` says how. ``begun``: tasks that it has begun under this lease. Kept by the
    raylet until ACK names its ``seq``. ``told``: the last number of what the raylet has RELAYed to
    the submitter; until it has that, the submitter does not know of all that came before the end.
    A head that does not know names one that never comes: the raylet says how it ends.
    ``status``: of the task that ran when the worker died: CRASHED, or, since it ran longer than its
    timeout, FINISHED, or FAILED where its retry_exceptions covers that.
    """

    lease_id: Id
    begun: Count = 0
    text: Text = ""
    told: Count = 0
    status: EndStatus = CRASHED


class Leasing(Message, tag=91):
    """Head to submitter: whether tasks of this class may wait for leases.

    If not, others wait for what such tasks need: they go by way of the head, as SUBMIT; so many of
    them at a time (``window``), or all (0). The others wait at the submitter meanwhile.
    """

    target: Id
    resources: Amounts
    open: bool
    window: Count = 0


class CancelLeased(Message, tag=92):
    """Submitter to head to raylet: stop a task that a leased worker runs.

    ``force``: end the worker; else it is ended after the grace of a cancel. ``recursive``: also the
    calls of actors that it has made.
    """

    lease_id: Id
    task_id: Id
    attempt: Count
    force: bool
    recursive: bool = False


class Runs(Message, tag=93):
    """Leased worker to raylet: what it prints from now on is of tasks of this name.

    ``begun``: tasks that it has begun under this lease, before those. ``events`` as in TEMPLATE.
    """

    name: Name
    begun: Count = 0
    events: bool = True


class Made(Message, tag=94):
    """Submitter to head: how large results of leased tasks were made, so that they can be again.

    ``runs``: they have not ended, and have yielded such. Without ``tasks``: of those of which that
    was said the ones in ``running`` (TaskIDs, concatenated) have not ended, and all others have.
    """

    submitter: Id
    job_id: Id
    tasks: Annotated[list[TaskSpec], MANY]
    runs: bool = False
    running: Ids = b""


# LeaseWord.kind
WORD_PAYLOAD = 1  # what submitter and worker say to each other: an encoded payload
WORD_TASKS = 2  # to the raylet: a packet for the worker's queue, an encoded TASKS
WORD_RECALL = 3  # to the raylet: give back what is still in the queue
WORD_CLOSE = 4  # to the raylet: the lease is of no use any more
WORD_RETURNED = 5  # from the raylet: ids of tasks, out of the queue
WORD_FULL = 6  # from the raylet: ids of tasks for which the queue had no room
WORD_ENDED = 7  # from the raylet: the worker has closed its socket, or cannot be reached


class LeaseWord(Struct, array_like=True, frozen=True):
    """A part of a RELAY; ``more``: the next word goes on with it."""

    kind: Count
    data: bytes = b""
    more: bool = False


class Reach(Message, tag=120):
    """Head to submitter: all nodes on other machines that may serve it; ids, and their own ports.

    It is leased workers of those that it REACHES.
    """

    target: Id
    nodes: Annotated[list[tuple[Id, Name]], MANY]


class Reaches(Message, tag=121):
    """Submitter to head: all nodes on other machines to whose own ports it has a connection."""

    submitter: Id
    node_ids: Ids


class Relay(Message, tag=122):
    """Submitter to raylet, and back: what is said to a leased worker on another machine, and by it.

    Over the raylet's own port, which begins with HELLO and WELCOME, or by way of the head.
    ``path``: how many ways to this node the submitter has taken until now, as ``incarnation`` of
    its HELLO was; what comes by an older one does not count. ``first``: number of the first of
    ``words``, which are kept until ``upto`` of the other end, the last one it has, says that they
    came.
    """

    source: Id
    target: Id
    lease_id: Id
    path: Count
    first: Count
    upto: Count
    words: Annotated[list[LeaseWord], MANY] = []


class RelayRefused(Message, tag=123):
    """Raylet to submitter: nothing is relayed for this lease; ``code`` is a stable error code."""

    source: Id
    target: Id
    lease_id: Id
    code: Name
    text: Text


LEASE_MESSAGES: tuple[type[Message], ...] = (
    *(Demand, Grant, Leased, Revoke, LeaseEnded, Leasing, CancelLeased, Runs, Made),
    *(Reach, Reaches, Relay, RelayRefused),
)
