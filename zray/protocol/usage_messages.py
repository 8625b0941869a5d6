"""The messages about what a node's processes use of its machine, as of now.

An observer asks; the head passes the question on to the node, and its answer back. A node looks
only when it is asked: figures grow from a process's start, so who asks twice has a rate.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Count, Id, IdOrNone, Message, Name, Seq
from zray.protocol.state_messages import Word

# UsedBy.kind
NODE_PROCESS = "NODE"
HEAD_PROCESS = "HEAD"
WORKER_PROCESS = "WORKER"

Amount = Annotated[float, Meta(ge=0)]


class Usage(Struct, array_like=True, frozen=True, gc=False):
    """What one process uses. ``cpu_s``: CPU time of all its threads since its start.

    ``rss_bytes``: of its memory that is in RAM; ``shared_bytes``: of these, what may be others' as
    well, such as objects and code. ``state``: a letter, as ps has it (R runs, S sleeps, D waits for
    a device, T is stopped, Z has ended). ``started_s``: since 1970.
    """

    pid: Count
    cpu_s: Amount
    rss_bytes: Count
    shared_bytes: Count
    threads: Count
    state: Word
    started_s: float


class UsedBy(Struct, array_like=True, frozen=True, gc=False):
    """One process of a node. ``kind``: NODE, HEAD or WORKER; ``worker_id`` of the last.

    ``title``: the class of the actor that it is, or the function that it runs; of one that rests,
    empty. ``busy``: it has a task, a lease or an actor.
    """

    usage: Usage
    kind: Word
    worker_id: IdOrNone = b""
    job_id: IdOrNone = b""
    actor_id: IdOrNone = b""
    title: Name = ""
    busy: bool = False


class MachineUsage(Struct, array_like=True, frozen=True):
    """What all uses of a machine, zray or not. ``cpus``: how many it has.

    ``cpu_s``: CPU time of all its CPUs since it was started. ``memory_bytes``: there is, or may be
    used in the node's control group; ``memory_used_bytes``: what is not free for the asking.
    ``load``: of the last minute.
    """

    cpus: Amount
    cpu_s: Amount
    memory_bytes: Count
    memory_used_bytes: Count
    load: Amount


class StoreUsage(Struct, array_like=True, frozen=True):
    """The node's objects in shared memory. ``capacity_bytes``: what they may take.

    ``used_bytes``: by objects; ``touched_bytes``: with what is kept for the next ones.
    ``spilled_bytes``: in files.
    """

    capacity_bytes: Count = 0
    used_bytes: Count = 0
    touched_bytes: Count = 0
    spilled_bytes: Count = 0
    objects: Count = 0


class Measure(Message, tag=210):
    """What do the processes of the node ``target`` use?

    ``head_pid``: set by the head, for its own node: whose process is there too.
    """

    source: Id
    target: Id
    head_pid: Count = 0


class Measured(Message, tag=211):
    """The answer. ``at_s``: when that was, on a clock of the node that only goes on.

    ``left_out``: processes beyond ``limits.MEASURED_PROCESSES_MAX``. ``clock_s``: what the node's
    machine took the time for then, in seconds since 1970.
    """

    target: Id
    about: Seq
    at_s: Amount
    machine: MachineUsage
    store: StoreUsage
    processes: Annotated[list[UsedBy], Meta(max_length=limits.MEASURED_PROCESSES_MAX)] = []
    left_out: Count = 0
    clock_s: float = 0.0


USAGE_MESSAGES: tuple[type[Message], ...] = (Measure, Measured)
