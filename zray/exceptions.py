"""Ray's names for zray's exceptions, as ``ray.exceptions`` has them.

zray never raises the classes that are made here: they are there for programs that catch them.
"""

from __future__ import annotations

from zray.api.actors import ActorClassInheritanceException
from zray.errors import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorHandleNotFoundError,
    ActorUnavailableError,
    AuthenticationError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OufOfBandObjectRefSerializationException,
    OwnerDiedError,
    PendingCallsLimitExceeded,
    RayActorError,
    RayError,
    RaySystemError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)

__all__ = [
    "ActorAlreadyExistsError",
    "ActorClassInheritanceException",
    "ActorDiedError",
    "ActorHandleNotFoundError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "AuthenticationError",
    "CrossLanguageError",
    "GetTimeoutError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectRefStreamEndOfStreamError",
    "ObjectStoreFullError",
    "OufOfBandObjectRefSerializationException",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlasmaObjectNotAvailable",
    "RayActorError",
    "RayCgraphCapacityExceeded",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayDirectTransportError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "StreamingGeneratorReplayInconsistentError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnserializableException",
    "UserCodeException",
    "WorkerCrashedError",
]


class ActorPlacementGroupRemoved(RayError):
    """The placement group of the actor was removed."""


class ActorUnschedulableError(RayError):
    """No node of the cluster can ever have the actor; here it waits, and `zray why` says so."""


class AsyncioActorExit(RayError):
    """An async actor ends itself."""


class CrossLanguageError(RayError):
    """Code in another language raised; here that is a TaskError as any other."""


class LocalRayletDiedError(RayError):
    """The node's daemon ended; here its workers end with it, see NodeDiedError."""


class ObjectFetchTimedOutError(ObjectLostError):
    """A value did not come from another node in time; here it is asked for again."""


class ObjectFreedError(ObjectLostError):
    """The object was freed by hand, which zray does not offer."""


class ObjectReconstructionFailedError(ObjectLostError):
    """A lost object could not be made again; here that is an ObjectLostError."""


class ObjectRefStreamEndOfStreamError(RayError):
    """A stream of references has ended."""


class OutOfDiskError(RayError):
    """There is no disk for another object; here that is an ObjectStoreFullError."""


class OutOfMemoryError(RayError):
    """The node ran out of memory."""


class PlasmaObjectNotAvailable(RayError):
    """A value is not in the object store; here it is waited for."""


class RayCgraphCapacityExceeded(RaySystemError):
    """Of Ray's compiled graphs, which zray does not have."""


class RayChannelError(RaySystemError):
    """Of Ray's compiled graphs, which zray does not have."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """An object went though references to it were left."""


class RpcError(RayError):
    """A request between daemons failed; here it is made again."""

    def __init__(self, message: str = "", rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code


class TaskPlacementGroupRemoved(RayError):
    """The placement group of the task was removed."""


class UnserializableException(RayError):
    """An exception could not be rebuilt; here it is a TaskError without a cause."""


class UserCodeException(RayError):
    """Marks an exception as one of user code, for libraries on top of Ray."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """Of Ray's compiled graphs, which zray does not have."""


class RayDirectTransportError(RaySystemError):
    """Of Ray's transports between GPUs, which zray does not have."""


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that ran again did not yield what it had yielded before; here that is an
    ObjectLostError."""
