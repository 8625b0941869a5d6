"""A client's sessions: the full state that each of them is told, and what is with the node."""

from __future__ import annotations

import pytest

from tests.core.benches import CLUSTER, FUNCTION, identity, object_of, value
from tests.core.client.benches import ME, TWO, client, hear, ids, resolve, said, submit
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.errors import VersionMismatchError
from zray.ids import split_objects
from zray.protocol import messages as m


def reconnect(made: Client, epoch: int = 1) -> list[m.Message]:
    made.disconnected()
    hear(made, m.Welcome(0, 1, CLUSTER, 1, 1.0), epoch=epoch)
    return said(made)


def test_the_first_session_tells_what_is_held_too() -> None:
    made = client(linked=False)
    hear(made, m.Welcome(0, 1, CLUSTER, 1, 1.0))
    assert m.Hold(0, ME, b"", True) in said(made)


def test_a_new_session_gets_what_is_unresolved_unchanged_and_then_what_is_held() -> None:
    made = client()
    made.export(m.Export(0, FUNCTION, "work", b"code"))
    (known,) = submit(made)
    (open_one,) = submit(made)
    (unwanted,) = submit(made)
    before = {spec.task_id: spec for message in said(made, m.Submit) for spec in message.tasks}
    resolve(made, known)
    made.references.remove(unwanted)
    said(made)
    messages = reconnect(made)
    kinds = [type(message) for message in messages]
    assert kinds.index(m.Template) < kinds.index(m.Submit) < kinds.index(m.Hold)
    assert m.Export in kinds
    (again,) = [message for message in messages if isinstance(message, m.Submit)]
    assert again.tasks == [before[open_one[:16]], before[unwanted[:16]]]
    assert ids([msg for msg in messages if isinstance(msg, m.Drop)]) == [unwanted]
    (holds,) = [message for message in messages if isinstance(message, m.Hold)]
    assert holds.full and set(split_objects(holds.object_ids)) == {known, open_one}
    assert m.Put not in kinds  # the same head knows where values are


def test_another_head_is_told_of_values_but_not_sent_them() -> None:
    made = client()
    (oid,) = submit(made)
    said(made)
    resolve(made, oid)
    said(made)
    messages = reconnect(made, epoch=2)
    (put,) = [message for message in messages if isinstance(message, m.Put)]
    assert put.outcome.object_id == oid
    assert put.outcome.kind == m.LOCATED and put.outcome.value == b""
    assert not [message for message in messages if isinstance(message, m.ResultAck)]
    hear(made, m.Pull(0, 3, oid), epoch=2)
    assert [chunk.data for chunk in said(made, m.Chunk)] == [b"value"]


def test_one_of_several_returns_is_not_told_to_another_head_before_the_others() -> None:
    """It would take the task for ended."""
    made = client()
    first, second = submit(made, TWO)
    said(made)
    hear(made, m.Result(0, ME, [value(first[:16])]))  # the rest is lost with the link
    messages = reconnect(made, epoch=2)
    assert not [message for message in messages if isinstance(message, m.Put)]
    (again,) = [message for message in messages if isinstance(message, m.Submit)]
    assert [spec.task_id for spec in again.tasks] == [first[:16]]
    both = [m.Outcome(oid, m.VALUE, 5, b"value") for oid in (first, second)]
    hear(made, m.Result(1, ME, both), epoch=2)
    assert made.here(second) is not None and not made.unresolved


def test_a_loss_is_not_passed_on_as_an_outcome() -> None:
    made = client()
    (oid,) = submit(made)
    said(made)
    hear(made, m.Result(1, ME, [m.Outcome(oid, m.LOCATED, 5)]))
    made.want_value(oid, Waiter())
    (pull,) = said(made, m.Pull)
    hear(made, m.PullFailed(0, pull.transfer, "ZR-3005", "gone"))
    assert not [message for message in reconnect(made, epoch=2) if isinstance(message, m.Put)]


def test_requests_cancels_watches_and_pulls_are_made_again() -> None:
    made = client()
    (mine,) = submit(made)
    other, large = object_of(identity("x")), object_of(identity("y"))
    for oid in (other, large):
        made.references.add(oid)
        made.want_value(oid, Waiter())
    hear(made, m.Result(1, ME, [m.Outcome(large, m.LOCATED, 5)]))
    made.cancel(mine[:16], force=True, recursive=False)
    asking = Waiter()
    made.ask(lambda number: m.Kv(number, "get", b"key"), asking)
    said(made)
    messages = reconnect(made)
    assert ids([msg for msg in messages if isinstance(msg, m.Watch)]) == [other]
    assert [msg.object_id for msg in messages if isinstance(msg, m.Pull)] == [large]
    assert [msg.task_id for msg in messages if isinstance(msg, m.Cancel)] == [mine[:16]]
    (request,) = [message for message in messages if isinstance(message, m.Kv)]
    hear(made, m.KvReply(0, request.seq, True, b"value"))
    assert asking.remaining == 0
    resolve(made, mine, seq=2)
    messages = reconnect(made)
    assert not [message for message in messages if isinstance(message, m.Cancel | m.Kv)]


def test_an_old_head_is_refused() -> None:
    made = client()
    reconnect(made, epoch=3)
    made.disconnected()
    hear(made, m.Welcome(0, 1, CLUSTER, 1, 1.0), epoch=2)
    assert made.refused is not None and not made.linked
    made.refused = None
    reconnect(made, epoch=3)
    (oid,) = submit(made)
    hear(made, m.Result(1, ME, [value(oid[:16])]), epoch=2)
    assert made.refused is not None
    assert made.here(oid) is None


@pytest.mark.usefixtures("narrow")
def test_what_waits_in_the_backlog_is_not_told_of_to_a_new_session() -> None:
    made = client()
    (first,) = submit(made)
    said(made)
    (second,) = submit(made)
    messages = reconnect(made)
    (holds,) = [message for message in messages if isinstance(message, m.Hold)]
    assert split_objects(holds.object_ids) == [first]
    (again,) = [message for message in messages if isinstance(message, m.Submit)]
    assert [spec.task_id for spec in again.tasks] == [first[:16]]
    resolve(made, first)
    assert [spec.task_id for msg in said(made, m.Submit) for spec in msg.tasks] == [second[:16]]


# ---- shared memory of the node -----------------------------------------------------------------


class Node:
    """The store of the client's node, of which the client is told by hand."""

    def __init__(self) -> None:
        self.there: dict[bytes, m.Outcome] = {}
        self.asked: list[bytes] = []
        self.dropped: list[bytes] = []

    def take(self, oid: bytes) -> bool:
        self.asked.append(oid)
        return True

    def published(self, oid: bytes) -> bytes:
        self.there[oid] = located(oid)
        return identity("n1")

    def unput(self, oid: bytes) -> None:
        self.dropped.append(oid)

    def told(self) -> tuple[list[m.Outcome], bytes]:
        return [*self.there.values()], identity("n1")


def located(oid: bytes) -> m.Outcome:
    return m.Outcome(oid, m.VALUE | m.LOCATED, 100_000)


def near(made: Client) -> tuple[Node, bytes]:
    """A value that the client has put with its node."""
    node = Node()
    made.values.near = node
    oid = made.references.put_near(located(object_of(identity("put"))))
    return node, oid


def test_what_is_with_the_node_is_told_again_to_a_new_session() -> None:
    made = client()
    _, oid = near(made)
    submit(made, dependencies=[oid])
    (put,) = said(made, m.Put)
    assert (put.outcome.object_id, put.place) == (oid, identity("n1"))
    made.disconnected()
    hear(made, m.Welcome(0, 1, CLUSTER, 1, 1.0))
    assert [(p.outcome.object_id, p.place) for p in said(made, m.Put)] == [(oid, identity("n1"))]


def test_own_values_of_a_node_that_is_gone_are_served_from_here() -> None:
    made = client()
    node, told = near(made)
    submit(made, dependencies=[told])
    private = made.references.put_near(located(object_of(identity("private"))))
    waiter = Waiter()
    made.want_value(private, waiter)
    assert node.asked == [private] and waiter.remaining == 1
    said(made)
    own = [m.Outcome(oid, m.VALUE, 3, b"abc") for oid in (told, private)]
    made.references.rescue(own, [told])
    made.values.near = None
    assert waiter.remaining == 0
    assert [made.here(oid) for oid in (told, private)] == own
    (put,) = said(made, m.Put)
    assert (put.outcome.object_id, put.place) == (told, b"")
    hear(made, m.Pull(0, 7, told))
    (chunk,) = said(made, m.Chunk)
    assert chunk.data == b"abc"


def test_a_value_that_nobody_has_heard_of_goes_with_its_reference() -> None:
    made = client()
    node, oid = near(made)
    made.references.remove(oid)
    assert node.dropped == [oid]
    assert said(made) == []


def test_a_head_of_a_far_version_is_none() -> None:
    made = client(linked=False)
    hear(made, m.Welcome(0, 1, CLUSTER, 1, 1.0, minor=m.PROTOCOL_MINOR + 2))
    assert made.refused is not None and made.refused.code == VersionMismatchError.code
    assert not made.linked and not said(made)
    hear(made, m.Welcome(0, 1, CLUSTER, 1, 1.0, minor=m.PROTOCOL_MINOR - 1))
    assert made.linked and made.head_minor == m.PROTOCOL_MINOR - 1 and made.refused is None
