"""What the error of an actor's call says that the actor did not raise."""

from __future__ import annotations

from zray.core import failures
from zray.core.client.actor_caller import PendingCall
from zray.errors import (
    ActorDiedError,
    ActorUnavailableError,
    RuntimeEnvSetupError,
    TaskCancelledError,
    ZrayError,
)
from zray.protocol import messages as m
from zray.protocol.errors import TASK_RAISED, system_error


def record(error: type[ZrayError], text: str, call: PendingCall) -> bytes:
    """The record of an error of a call."""
    return system_error(error.code, text, function_name=named(call))


def named(call: PendingCall) -> str:
    """A call, for people."""
    info = call.actor.info
    return f"{info.class_name}.{call.method}" if info is not None else call.method


def obituary(call: PendingCall) -> bytes:
    """The record of the error of a call whose actor has ended, or is not to be reached for now.

    Of one that was cancelled, that.
    """
    if call.cancelled:
        return record(TaskCancelledError, "the call was cancelled", call)
    actor, name = call.actor, named(call)
    cause = failures.read(actor.error) if actor.error else None
    not_built = cause is not None and cause.code == RuntimeEnvSetupError.code
    if cause is not None and cause.code != TASK_RAISED:
        cause = None
    ran = "the call may have run" if call.may_have_run else "the call did not run"
    what = f"{ran} ({name}, actor {actor.actor_id.hex()})"
    error: type[ZrayError] = ActorUnavailableError
    if actor.state == m.ACTOR_DEAD:
        error = RuntimeEnvSetupError if not_built else ActorDiedError
        text = f"{actor.text}; {what}"
    elif actor.state == m.ACTOR_ALIVE:
        why = "the connection to the actor's process broke"
        if actor.out_of_reach():
            why = actor.text
        text = (
            f"{why}; {what}. The actor lives, as far as is known: call it again, or give it "
            "max_task_retries, with which its calls wait until it is reached"
        )
    else:
        text = (
            f"{actor.text}; {what}. The actor is being "
            "restarted: call it again, or give it max_task_retries where a call may run twice"
        )
    return system_error(
        *(error.code, text),
        function_name=name,
        maybe_executed=call.may_have_run,
        actor_id=actor.actor_id,
        cause=cause,
    )
