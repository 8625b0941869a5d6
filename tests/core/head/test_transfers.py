"""Who is told to ask whom for a large value, so that many copies spread from node to node."""

from __future__ import annotations

from typing import Any

from tests.core.benches import HeadBench, identity, object_of
from zray import limits
from zray.protocol import messages as m

BIG = object_of(identity("big"))


def head_with(nodes: int) -> HeadBench:
    """Nodes n1, n2 ... whose ports are reachable; the first has the object."""
    head = HeadBench()
    head.driver("d1")
    for number in range(1, nodes + 1):
        head.node(f"n{number}")
        member = head.sessions.by_route[f"n{number}".encode()].member
        member.liveness = f"host{number}:1"  # type: ignore[attr-defined]
    where = head.sessions.by_route[b"n1"].member.process_id
    outcome = m.Outcome(BIG, m.VALUE | m.LOCATED, 50 << 20)
    head.say("d1", m.Put(0, identity("d1"), outcome, where))
    return head


def asked(head: HeadBench, node: str) -> list[str]:
    """Whom the node was told to ask since the last time."""
    return [told.address for told in head.taken(node, m.PullFrom)]


def pull(head: HeadBench, node: str, transfer: int = 1, **more: Any) -> None:
    head.taken(node)
    head.say(node, m.Pull(0, transfer, BIG, more.get("direct", True)))


def test_copies_spread_from_node_to_node() -> None:
    head = head_with(8)
    for number in range(2, 9):
        pull(head, f"n{number}")
    told = [number for number in range(2, 9) if asked(head, f"n{number}") == ["host1:1"]]
    assert told == [2, 3] and limits.PEER_PULLS_MAX == 2
    head.say("n2", m.Have(0, BIG))
    told = {number: asked(head, f"n{number}") for number in range(4, 9)}
    assert sorted(told.values()) == [[], [], ["host1:1"], ["host2:1"], ["host2:1"]]
    busy = [number for number, whom in told.items() if whom]
    for number in (3, *busy):
        head.say(f"n{number}", m.Have(0, BIG))
    left = {number: asked(head, f"n{number}") for number in range(4, 9) if number not in busy}
    assert all(len(whom) == 1 for whom in left.values())


def test_a_node_that_could_not_reach_the_other_gets_it_through_the_head() -> None:
    head = head_with(2)
    pull(head, "n2")
    assert asked(head, "n2") == ["host1:1"]
    head.taken("n1")
    pull(head, "n2", transfer=2, direct=False)
    (relayed,) = head.taken("n1", m.Pull)
    head.say("n1", m.Chunk(0, relayed.transfer, 0, 0, 4, b"data"))
    (chunk,) = head.taken("n2", m.Chunk)
    assert (chunk.transfer, chunk.data) == (2, b"data")
    assert head.gcs.transfers.relayed_bytes == 4


def test_one_that_waits_is_served_when_the_other_gives_up() -> None:
    head = head_with(4)
    for number in (2, 3, 4):
        pull(head, f"n{number}")
    assert asked(head, "n4") == []
    head.sessions.link_lost(b"n2", head.now)
    head.turn()
    assert asked(head, "n4") == ["host1:1"]


def test_drivers_get_it_through_the_head() -> None:
    head = head_with(2)
    head.taken("n1")
    head.say("d1", m.Pull(0, 1, BIG))
    assert head.taken("n1", m.Pull) and not head.taken("d1", m.PullFrom)
