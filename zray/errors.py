"""Every exception that zray raises, each with a stable code. Imports the standard library only.

A message says cause, effect and next step. Codes: 1xxx connection and security, 2xxx protocol,
3xxx tasks and objects, 4xxx this machine (ports, data directory, store), 51xx operating. Ray's
names are aliases at the end of this module, so that ``except ray.exceptions.X`` works unchanged.
"""

from __future__ import annotations

from collections.abc import Callable


class ZrayError(Exception):
    """Base of all zray exceptions; ``code`` is stable across releases."""

    code = "ZR-1000"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.code} {super().__str__()}"


# ---- 1xxx: connection and security ---------------------------------------------------------


class HeadConnectionError(ZrayError, ConnectionError):
    """The head cannot be used from here."""

    code = "ZR-1500"


class AuthenticationError(HeadConnectionError):
    """The head refused this process's key, or this process has no key for it."""

    code = "ZR-1401"


class WrongHeadError(HeadConnectionError):
    """The head does not hold the key that the connection file names (another cluster, or worse)."""

    code = "ZR-1402"


class EncryptionMismatchError(HeadConnectionError):
    """One side encrypts, the other does not."""

    code = "ZR-1403"


class NotZrayError(HeadConnectionError):
    """Something listens at the address, but it does not speak zray's protocol."""

    code = "ZR-1404"


class NothingListensError(HeadConnectionError):
    """Nothing accepts connections at the address."""

    code = "ZR-1405"


class UnknownHostError(HeadConnectionError):
    """The host name has no address."""

    code = "ZR-1406"


class NoLeaderError(HeadConnectionError):
    """Heads are there, but all of them stand by: none leads, or the one that does is not to be
    reached from here."""

    code = "ZR-1504"


class HeadSilentError(HeadConnectionError):
    """The head accepted the connection but did not answer in time."""

    code = "ZR-1503"


class NotInitializedError(ZrayError, RuntimeError):
    """The call needs a cluster, and ``zray.init()`` was not called."""

    code = "ZR-1510"


# ---- 2xxx: protocol ------------------------------------------------------------------------


class ProtocolError(ZrayError):
    """A peer broke the protocol; it is told so, and nobody else is affected."""

    code = "ZR-2001"


class VersionMismatchError(ProtocolError):
    """Two processes whose versions cannot work together met; the message names both."""

    code = "ZR-2005"


class InternalFaultError(ZrayError):
    """zray itself failed at one message or task, which had no or only a part of its effect."""

    code = "ZR-2009"


class WrongClusterError(ProtocolError):
    """A process of one cluster spoke to the head of another."""

    code = "ZR-2007"


class StateQueryError(ZrayError, ValueError):
    """A question about the cluster's state that cannot be answered as it is put."""

    code = "ZR-2010"


class MessageTooLargeError(ProtocolError):
    """A task, call or result is larger than what zray sends in one message; only it failed."""

    code = "ZR-2021"


# ---- 3xxx: tasks and objects ---------------------------------------------------------------


class TaskError(ZrayError):
    """A task raised. Raised as a class that is also the user exception's own type.

    Attributes:
        function_name: the task's name.
        traceback_text: the traceback made where the task ran.
        cause: the user's exception, or None where it could not be rebuilt here.
    """

    code = "ZR-3001"

    def __init__(
        self,
        function_name: str = "",
        traceback_str: str = "",
        cause: BaseException | None = None,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        """As Ray's, for programs that make one; those that ``get`` raises are made otherwise."""
        super().__init__(function_name)
        self.function_name = function_name
        self.traceback_text = traceback_str
        self.cause = cause
        self.proctitle, self.pid, self.ip = proctitle, pid, ip
        self.actor_repr, self._actor_id = actor_repr, actor_id

    def __str__(self) -> str:
        return self.traceback_text or super().__str__()

    def as_instanceof_cause(self) -> TaskError:
        """The error as one of its cause's own type, too, where that can be.

        What ``get`` raises is that already.
        """
        if self.cause is None or isinstance(self, type(self.cause)):
            return self
        return _of_both_types(self)


_of_both_types: Callable[[TaskError], TaskError] = lambda error: error  # noqa: E731


def set_of_both_types(made: Callable[[TaskError], TaskError]) -> None:
    """``made(error)``: a TaskError that is of the type of its cause, too."""
    global _of_both_types
    _of_both_types = made


class TaskCancelledError(ZrayError):
    """The task was cancelled before it had a result."""

    code = "ZR-3002"

    def __init__(
        self, task_id: object = None, error_message: str = "", *, code: str | None = None
    ) -> None:
        """As Ray's; a text alone is the message."""
        which = "" if task_id is None or isinstance(task_id, str) else f"{task_id} was cancelled"
        parts = (task_id if isinstance(task_id, str) else which, error_message)
        super().__init__(". ".join(filter(None, parts)), code=code)


class WorkerCrashedError(ZrayError):
    """The worker process died while it ran the task, more often than the task's retries allow."""

    code = "ZR-3003"


class NodeDiedError(WorkerCrashedError):
    """The node that ran the task was lost, more often than the task's retries allow."""

    code = "ZR-3004"


class ObjectLostError(ZrayError):
    """No copy of the object is left in the cluster."""

    code = "ZR-3005"

    def __init__(
        self,
        object_ref_hex: str = "",
        owner_address: object = None,
        call_site: str = "",
        *,
        code: str | None = None,
    ) -> None:
        """As Ray's; zray's own have the whole message in place of the id."""
        super().__init__(object_ref_hex, code=code)
        self.object_ref_hex = object_ref_hex
        self.owner_address, self.call_site = owner_address, call_site


class OwnerDiedError(ObjectLostError):
    """The process that made the object ended, and the object with it."""

    code = "ZR-3006"


class TaskUnschedulableError(ZrayError):
    """No node of the cluster can ever run the task."""

    code = "ZR-3007"


class TaskPlacementGroupRemoved(ZrayError):
    """The placement group of the task was removed before the task could run to its end."""

    code = "ZR-3010"


class PlacementGroupExistsError(ZrayError, ValueError):
    """The name is taken by another placement group of the namespace."""

    code = "ZR-3011"


class TooManyBundlesError(ZrayError):
    """The program has as many bundles in placement groups as the head keeps for one program."""

    code = "ZR-3013"


class NameNotOfferedError(ZrayError, LookupError):
    """No node offers a function or actor class of that name."""

    code = "ZR-3008"


class TaskTimeoutError(ZrayError, TimeoutError):
    """The task ran longer than its ``timeout=``; the message says where it was by then."""

    code = "ZR-3009"


class RuntimeEnvSetupError(ZrayError):
    """The environment of a task or actor could not be built; the message has what the build said
    last."""

    code = "ZR-3012"


class GetTimeoutError(ZrayError, TimeoutError):
    """``get`` did not have all values in time; the message says what it waited for and why."""

    code = "ZR-3101"


class ReentrantCallError(ZrayError, RuntimeError):
    """A signal handler called the API while the program was inside of it."""

    code = "ZR-3102"


class SerializationError(ZrayError, TypeError):
    """A value cannot be pickled or unpickled; the message names the offending variable."""

    code = "ZR-3201"


class ObjectStoreFullError(ZrayError):
    """There is no memory for another object; the message says what holds it."""

    code = "ZR-3202"


class OutOfBandReferenceError(ZrayError):
    """A reference was pickled where nobody can follow it, and the environment forbids that."""

    code = "ZR-3203"


class ClusterShutdownError(ZrayError):
    """The cluster was shut down while the value was awaited."""

    code = "ZR-3301"


class ActorError(ZrayError):
    """A call of an actor has no result, for the actor's sake.

    Attributes:
        maybe_executed: whether the call may have run, wholly or in part, before that.
        actor_id: of the actor, as 32 hexadecimal digits, where known.
    """

    code = "ZR-3401"

    def __init__(
        self,
        message: str = "",
        actor_id: str | None = "",
        *,
        error_msg: str = "",
        maybe_executed: bool = False,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message or error_msg)
        self.maybe_executed = maybe_executed
        self.actor_id = actor_id or ""
        self.cause = cause

    @property
    def error_msg(self) -> str:
        """The message, as Ray calls it."""
        return str(self)

    @property
    def actor_init_failed(self) -> bool:
        """Whether the actor's constructor raised; ``cause`` is what."""
        return self.cause is not None


class ActorDiedError(ActorError):
    """The actor is dead and will not be restarted; ``cause`` is what its constructor raised."""

    code = "ZR-3402"


class ActorPlacementGroupRemoved(ActorDiedError):
    """The actor's placement group was removed, and the actor with it."""

    code = "ZR-3407"


class ActorUnschedulableError(ActorDiedError):
    """The actor was to be on a node that is not there, or never has what the actor needs."""

    code = "ZR-3408"


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now, and can be called again.

    It died and is being restarted, or its node is not heard of, or the connection to it broke.
    """

    code = "ZR-3403"


class CollectiveError(ZrayError, RuntimeError):
    """A call of a collective group failed: a member is gone, or calls something else."""

    code = "ZR-3511"


class PendingCallsLimitExceededError(ZrayError):
    """More calls of the actor wait than its ``max_pending_calls`` allows; this one was not made."""

    code = "ZR-3404"


class ActorAlreadyExistsError(ZrayError, ValueError):
    """The name is taken by another actor of the namespace."""

    code = "ZR-3405"


class ActorNotFoundError(ZrayError, ValueError):
    """No living actor has the name."""

    code = "ZR-3406"


class WorkerPoolBrokenError(ZrayError):
    """A worker of an executor or pool died, and so the whole of it takes no calls any more."""

    code = "ZR-3501"


# ---- 4xxx: this machine --------------------------------------------------------------------


class PortInUseError(ZrayError, OSError):
    """The port is taken; the message names the process that holds it."""

    code = "ZR-4001"


class DataDirectoryLockedError(ZrayError):
    """Another head uses the data directory; the message names its pid."""

    code = "ZR-4002"


class StoreError(ZrayError):
    """The control store cannot be read or written; the head serves nothing that depends on it."""

    code = "ZR-4003"


class StoreRefusedError(StoreError):
    """What is stored is damaged, of a newer zray or another cluster, or was moved elsewhere."""

    code = "ZR-4009"


class FencedError(StoreError):
    """This head does not lead any more: another may, so it acknowledges and says nothing."""

    code = "ZR-4008"


class KeyFileError(ZrayError):
    """A key or connection file is unreadable, malformed, or readable by others."""

    code = "ZR-4004"


class OlderStoreError(ZrayError):
    """The head's store is older than what its peers know: it was restored from a backup."""

    code = "ZR-4006"


class DashboardError(ZrayError):
    """The process that serves the dashboard has ended, or cannot be started."""

    code = "ZR-4007"


class StartError(ZrayError, RuntimeError):
    """A daemon did not start; the message carries the end of its log."""

    code = "ZR-4005"


# ---- 51xx: operating a cluster ---------------------------------------------------------------


class NotFoundError(ZrayError, LookupError):
    """Nothing in the cluster has that id, name or pid, or not any more."""

    code = "ZR-5101"


class AmbiguousError(ZrayError, LookupError):
    """Several things have that name, or begin with these digits; the message names them."""

    code = "ZR-5102"


class BusyError(ZrayError):
    """A node or the head answers as many such questions as it may at a time."""

    code = "ZR-5103"


class ProfilerError(ZrayError):
    """The process could not be looked into; the message says what is missing."""

    code = "ZR-5104"


class LogUnavailableError(ZrayError):
    """There is no such log on the node, or not any more."""

    code = "ZR-5105"


class DrainRefusedError(ZrayError):
    """The node cannot be drained; the message says why."""

    code = "ZR-5106"


class WebRequestError(ZrayError, ValueError):
    """A request to the HTTP API that cannot be understood, or is larger than allowed."""

    code = "ZR-5107"


class WebLoginError(ZrayError):
    """A request without a login, from another site, or under a name that is not the page's."""

    code = "ZR-5108"


class NoStandbyError(ZrayError):
    """The head that leads was asked to stand by, and there is no other that could lead."""

    code = "ZR-5109"


class JobSubmissionError(ZrayError, RuntimeError):
    """A job cannot be submitted, stopped or deleted as it was asked for; the message says why.

    A RuntimeError, since Ray's JobSubmissionClient raises that.
    """

    code = "ZR-5130"


class JobNotFoundError(JobSubmissionError, LookupError):
    """There is no such submitted job, or not any more."""

    code = "ZR-5131"


class JobExistsError(JobSubmissionError):
    """There is, or was, a job with that submission id."""

    code = "ZR-5132"


class ReplayError(ZrayError):
    """A failed attempt cannot be made again here; the message says what is missing."""

    code = "ZR-5120"


class RunNotKeptError(ZrayError, LookupError):
    """Of that attempt nothing is kept, or not any more; the message says why."""

    code = "ZR-5121"


class WorkloadError(ZrayError, ValueError):
    """A recorded workload cannot be read, or cannot run on the imagined cluster."""

    code = "ZR-5122"


RayError = ZrayError
RayTaskError = TaskError
RaySystemError = InternalFaultError
RayActorError = ActorError
RayStateApiException = StateQueryError
OufOfBandObjectRefSerializationException = OutOfBandReferenceError
PendingCallsLimitExceeded = PendingCallsLimitExceededError
ActorHandleNotFoundError = ActorNotFoundError
