"""What the error of an actor's call says that the actor did not raise."""

from __future__ import annotations

from zray.core import failures
from zray.core.client.actor_caller import ActorCaller, PendingCall
from zray.errors import ActorDiedError, ActorUnavailableError, ZrayError
from zray.protocol import messages as m
from zray.protocol.errors import TASK_RAISED, system_error


def record(error: type[ZrayError], text: str, call: PendingCall) -> bytes:
    """The record of an error of a call."""
    return system_error(error.code, text, function_name=named(call))


def named(call: PendingCall) -> str:
    """A call, for people."""
    info = call.actor.info
    return f"{info.class_name}.{call.method}" if info is not None else call.method


def obituary(call: PendingCall, actor: ActorCaller, maybe_executed: bool) -> bytes:
    """The record of the error of a call whose actor has ended, for good or until it is back."""
    name = named(call)
    cause = None
    if actor.error:
        cause = failures.read(actor.error)
        if cause.code != TASK_RAISED:
            cause = None
    ran = "the call may have run" if maybe_executed else "the call did not run"
    if actor.state == m.ACTOR_DEAD:
        error: type[ZrayError] = ActorDiedError
        text = f"{actor.text}; {ran} ({name}, actor {actor.actor_id.hex()})"
    else:
        error = ActorUnavailableError
        text = (
            f"{actor.text}; {ran} ({name}, actor {actor.actor_id.hex()}). The actor is being "
            "restarted: call it again, or give it max_task_retries where a call may run twice"
        )
    return system_error(
        *(error.code, text),
        function_name=name,
        maybe_executed=maybe_executed,
        actor_id=actor.actor_id,
        cause=cause,
    )
