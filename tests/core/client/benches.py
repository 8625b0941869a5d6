"""The client on a bench, and its lower machines without it: real ones, each on those below it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.core.benches import CLUSTER, identity, somebody, template, value
from zray.core.client.actor_caller import ActorCaller, ActorCallers
from zray.core.client.call_results import CallResults
from zray.core.client.client import Client
from zray.core.client.creations import ClientCreations
from zray.core.client.definitions import ClientDefinitions
from zray.core.client.near_values import NearValues
from zray.core.client.references import ClientReferences
from zray.core.client.requests import Requests
from zray.core.client.unasked import UnaskedErrors
from zray.core.client.values import ClientValues
from zray.core.client.waiters import Waiter, Waiters
from zray.ids import split_objects
from zray.protocol import messages as m
from zray.protocol.codec import Payload

ME = identity("d1")
WORK = template()
TWO = template("two", returns=2)


def client(*, remote: bool = True, linked: bool = True) -> Client:
    made = Client(somebody(ME), remote=remote)
    if remote and linked:
        hear(made, m.Welcome(0, 1, CLUSTER, 1, 1.0))
    for message in (WORK, TWO):
        made.template(message)
    made.outbox.clear()
    return made


def hear(made: Client, *messages: m.Message, epoch: int = 1) -> None:
    made.receive(Payload(epoch, list(messages), []), 0.0)


def said(made: Client, kind: type[m.Message] | None = None) -> list[Any]:
    made.flush()
    outbox = made.take_outbox()
    return [message for message in outbox if kind is None or isinstance(message, kind)]


def submit(made: Client, made_of: m.Template = WORK, **fields: Any) -> list[bytes]:
    spec = m.TaskSpec(made.new_task(), made_of.template_id, b"", **fields)
    return made.submit(spec, made_of.num_returns)


def ids(messages: list[Any]) -> list[bytes]:
    return [oid for message in messages for oid in split_objects(message.object_ids)]


def resolve(made: Client, *oids: bytes, seq: int = 1) -> None:
    hear(made, m.Result(seq, ME, [value(oid[:16]) for oid in oids]))


class Lower:
    """Tables, waiters, values, references, requests and definitions of one process."""

    def __init__(self, *, remote: bool = True) -> None:
        self.outbox: list[m.Message] = []
        self.outcomes: dict[bytes, m.Outcome] = {}
        self.unresolved: dict[bytes, m.TaskSpec] = {}
        self.expected: set[bytes] = set()
        self.unsubmitted: set[bytes] = set()
        self.hurried: list[bytes] = []  # tasks that are to be submitted now
        self.watched: list[bytes] = []
        self.gone_handles: list[bytes] = []
        self.results = CallResults()
        self.me = somebody(ME)
        self.actors = ActorCallers(self.me)
        self.requests = Requests(self.outbox)
        self.waiters = Waiters(
            self.outcomes,
            lives=lambda oid: oid in self.references.counts,
            expected=self.expected.__contains__,
            watch=self.watched.append,
            pull=lambda oid: self.values.pull(oid),
        )
        self.values = ClientValues(
            self.outbox.append, lambda outcome: self.waiters.wake(outcome.object_id, outcome)
        )
        self.near = NearValues(self.outcomes, self.waiters.values.__contains__)
        self.references = ClientReferences(
            unasked=UnaskedErrors(None, {}),
            me=self.me,
            outbox=self.outbox,
            outcomes=self.outcomes,
            unresolved=self.unresolved,
            results=self.results,
            actors=self.actors,
            waiters=self.waiters,
            values=self.values,
            near=self.near,
            handle_dropped=self.gone_handles.append,
            hurry=lambda task_id: None,
            remote=remote,
        )
        self.definitions = ClientDefinitions(
            outbox=self.outbox,
            publish=self.references.publish,
            number=self.requests.number,
            remote=remote,
        )

    def make_creations(
        self, refuse: Callable[[ActorCaller, str], None], asked: Callable[[bytes], None]
    ) -> ClientCreations:
        return ClientCreations(
            me=self.me,
            actors=self.actors,
            references=self.references,
            definitions=self.definitions,
            requests=self.requests,
            unsubmitted=self.unsubmitted.__contains__,
            submit=self.hurried.append,
            refuse=refuse,
            asked=asked,
        )

    def taken(self, kind: type[m.Message] | None = None) -> list[Any]:
        """What was said since the last time, of a kind."""
        messages = [*self.outbox]
        self.outbox.clear()
        return [message for message in messages if kind is None or isinstance(message, kind)]

    def told(self, kind: type[Any]) -> list[bytes]:
        """The objects of HOLDs or DROPs, which are told now."""
        self.references.flush_holds()
        self.references.drop_some(())
        return [oid for message in self.taken(kind) for oid in split_objects(message.object_ids)]

    def waits(self, *oids: bytes) -> Waiter:
        """Somebody who waits for these values."""
        waiter = Waiter()
        for oid in oids:
            self.waiters.want_value(oid, waiter)
        return waiter
