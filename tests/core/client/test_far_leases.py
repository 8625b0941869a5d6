"""Leases of a driver on nodes of other machines: connections, words, what comes back, and ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity
from tests.core.client.benches import ME
from tests.core.client.test_leases import CLASS, Bench, names, object_of
from zray import limits
from zray.core.lease_stream import LeaseStream
from zray.errors import NodeDiedError, WorkerCrashedError
from zray.protocol import codec
from zray.protocol import messages as m

NODE = identity("one")
NEVER = 1 << 50  # tasks begun, and words told, as a head has it that knows of neither
UNKNOWN = m.LeaseEnded(0, identity("l"), NEVER, "the lease is not known any more", NEVER)


class Far(Bench):
    """One node elsewhere. ``stream``: its end; ``packets``: what it has put into a queue."""

    def __init__(self, *, reached: bool = True, seconds: float | None = 0.01) -> None:
        super().__init__()
        self.now = 100.0
        self.stream = LeaseStream(1 << 20)
        self.packets: list[list[str]] = []
        self.words: list[int] = []
        self.told: list[m.Message] = []
        self.path = 0
        self.far.on_reach(m.Reach(0, ME, [(NODE, "10.0.0.1:1")]))
        self.tend(0.0)
        if reached:
            self.far.on_link(NODE, m.Welcome(0, 1, bytes(16), 1, 1.0), self.now)
            self.lease_far()
        if seconds is not None:
            for template in self.tasks._templates.values():
                if template is not None:
                    template.measured(seconds)
        self.taken()

    def tend(self, seconds: float) -> None:
        """Time passes; connections are closed and made as is wanted."""
        self.now += seconds
        self.far.tend(self.now)
        self.shut = [*self.far.shuts]
        self.opened = [node.path for node in self.far.opens]
        self.far.shuts.clear()
        self.far.opens.clear()

    def lease_far(self) -> None:
        held = m.HeldLease(identity("l"), ME, ME, CLASS, identity("w"))
        self.leases.on_leased(m.Leased(0, held, "elsewhere", "one", NODE))
        self.turn()

    def hear(self) -> None:
        """What the node gets, over the connection or by way of the head."""
        self.turn()
        self.told += self.far.links.take().get(NODE, []) + self.taken()
        for message in self.told:
            if isinstance(message, m.Relay):
                self.path = message.path
                for kind, data in self.stream.hear(message):
                    self.words.append(kind)
                    if kind == m.WORD_TASKS:
                        (packet,) = codec.decode(data).messages
                        assert isinstance(packet, m.Tasks)
                        self.packets.append(names(packet))

    def heads(self, kind: type[m.Message]) -> list[Any]:
        told = [message for message in self.told if isinstance(message, kind)]
        self.told = [message for message in self.told if message not in told]
        return told

    def say(self, kind: int, data: bytes = b"") -> None:
        """The node says something."""
        self.stream.say(kind, data)
        self.answer()

    def answer(self) -> None:
        self.far.on_relay(self.stream.take(NODE, ME, identity("l"), self.path))
        self.turn()

    def done(self, *tasks: str) -> None:
        ends = []
        for name in tasks:
            results = [m.Outcome(object_of(name), m.VALUE, 1, b"v")]
            ends.append(m.TaskDone(identity(name), 1, m.FINISHED, results, 0.01))
        self.say(m.WORD_PAYLOAD, codec.encode_local([m.Done(0, ends)])[0])

    def back(self, *tasks: str, kind: int = m.WORD_RETURNED) -> None:
        self.say(kind, b"".join(map(identity, tasks)))


# ---- connections ---------------------------------------------------------------------------


def test_the_head_hears_of_a_node_once_that_answers() -> None:
    bench = Far(reached=False)
    assert bench.opened == [1] and bench.taken(m.Reaches) == []
    bench.far.on_link(NODE, m.Welcome(0, 1, bytes(16), 1, 1.0), bench.now)
    assert [one.node_ids for one in bench.taken(m.Reaches)] == [NODE]
    bench.far.on_reach(m.Reach(0, ME, [(NODE, "10.0.0.1:1")]))  # another head asks
    assert [one.node_ids for one in bench.taken(m.Reaches)] == [NODE]
    bench.far.on_reach(m.Reach(0, ME, []))
    assert bench.far.shuts == [NODE] and not bench.far.nodes


def test_a_port_that_does_not_answer_is_tried_later_and_later() -> None:
    bench = Far(reached=False)
    bench.tend(limits.PEER_CONNECT_S + 0.1)
    assert bench.shut == [NODE] and not bench.opened
    waits = []
    for _ in range(12):
        waited = 0.0
        while not bench.opened:
            bench.tend(0.01)
            waited += 0.01
        waits.append(waited)
        bench.far.lost(NODE, bench.now)
        bench.tend(0.0)
    assert waits == sorted(waits) and waits[-1] == pytest.approx(limits.PEER_AVOID_S, abs=0.1)
    assert bench.taken(m.Reaches) == []
    bench.far.on_reach(m.Reach(0, ME, [(NODE, "10.0.0.2:2")]))
    bench.tend(0.0)
    assert bench.opened  # it is elsewhere now


def test_a_node_that_does_not_answer_any_more_is_lost() -> None:
    bench = Far()
    bench.tend(limits.PING_S + 0.1)
    assert isinstance(bench.far.links.take()[NODE][-1], m.Ping)
    bench.far.on_link(NODE, m.Pong(0, bench.now, "OK"), bench.now)
    bench.tend(limits.PING_S + 0.1)
    bench.far.links.take()
    bench.tend(limits.SUSPECT_S + 0.1)
    assert bench.shut == [NODE]


@pytest.mark.parametrize("answer", [m.Rejoin(0, "say HELLO first"), m.Refused(0, "ZR-2001", "")])
def test_a_node_that_has_forgotten_is_told_anew(answer: m.Message) -> None:
    bench = Far()
    bench.far.on_link(NODE, answer, bench.now)
    bench.tend(limits.RECONNECT_FIRST_S)
    assert bench.shut == [NODE] and bench.opened == [2]


# ---- tasks ---------------------------------------------------------------------------------


def test_functions_come_before_tasks_and_ends_come_back() -> None:
    bench = Far()
    bench.submit("a")
    bench.hear()
    assert bench.words == [m.WORD_PAYLOAD, m.WORD_PAYLOAD, m.WORD_TASKS]
    assert bench.packets == [["a"]]
    bench.done("a")
    assert bench.outcomes[object_of("a")].value == b"v"


def test_the_next_ones_are_under_way_by_the_round_trip() -> None:
    bench = Far(seconds=0.01)
    (node,) = bench.far.nodes.values()
    node.rtt_s = 0.035
    for number in range(10):
        bench.submit(f"t{number}")
    bench.hear()
    assert len(bench.packets) == 2 + 3


def test_what_is_asked_back_comes_later_and_nothing_is_given_meanwhile() -> None:
    bench = Far()
    for name in "ab":
        bench.submit(name)
    bench.hear()
    assert bench.packets == [["a"], ["b"]]
    bench.lease("near")  # another worker, of this machine, has nothing to do
    bench.hear()
    assert bench.words[-1] == m.WORD_RECALL
    bench.done("a")
    near = [*"cdefghij"]  # so many of 10 ms as a worker has at once
    for name in near:
        bench.submit(name)
    bench.hear()
    assert len(bench.packets) == 2 and bench.waiting(identity("lnear")) == near
    bench.submit("k")
    bench.back("b")
    bench.hear()
    assert bench.packets[2:] == [["b"], ["k"]]


def test_a_cancel_reaches_a_task_that_is_not_in_what_comes_back() -> None:
    bench = Far()
    for name in "ab":
        bench.submit(name)
    bench.hear()
    for name in "ab":
        assert bench.tasks.cancel(identity(name), False, False)
    bench.hear()
    assert bench.words[-1] == m.WORD_RECALL and bench.heads(m.CancelLeased) == []
    bench.back("b")
    assert bench.code("b") == "ZR-3002"
    bench.hear()
    assert [one.task_id for one in bench.heads(m.CancelLeased)] == [identity("a")]


def test_what_the_queue_had_no_room_for_waits() -> None:
    bench = Far()
    for name in "ab":
        bench.submit(name)
    bench.hear()
    bench.back("b", kind=m.WORD_FULL)
    bench.hear()
    assert bench.packets == [["a"], ["b"]] and not bench.by_head
    bench.done("a")
    bench.hear()
    assert bench.packets == [["a"], ["b"], ["b"]]
    bench.back("b", kind=m.WORD_FULL)  # though there is nothing else in it
    assert [spec.task_id for spec in bench.by_head] == [identity("b")]


# ---- cuts ----------------------------------------------------------------------------------


def test_a_cut_costs_nothing_once_there_is_another_connection() -> None:
    bench = Far()
    bench.submit("a")
    bench.turn()
    bench.far.links.take()  # lost
    bench.far.lost(NODE, bench.now)
    bench.submit("b")
    bench.hear()
    assert not bench.packets
    bench.tend(limits.RECONNECT_FIRST_S)
    bench.far.on_link(NODE, m.Welcome(0, 1, bytes(16), 1, 1.0), bench.now)
    bench.hear()
    assert bench.path == 2 and bench.packets == [["a"]]
    bench.leases.flush()
    bench.done("a")
    assert bench.outcomes[object_of("a")].value == b"v"


def test_out_of_reach_it_is_spoken_to_by_way_of_the_head() -> None:
    bench = Far()
    bench.submit("a")
    bench.hear()
    bench.far.lost(NODE, bench.now)
    bench.tend(0.0)
    bench.tend(limits.PEER_CONNECT_S + 0.1)
    bench.hear()
    assert [one.node_ids for one in bench.heads(m.Reaches)] == [b""]
    first = bench.path
    bench.done("a")  # as the head passes it on
    assert bench.outcomes[object_of("a")].value == b"v"
    bench.far.resume()
    bench.hear()
    assert bench.path > first  # what an old head was to pass on may be lost


def test_long_out_of_reach_a_node_hears_all_the_same_that_a_lease_is_given_up() -> None:
    """What was to be passed on may be lost: it is said until the node answers, or might be dead."""
    bench = Far()
    bench.hear()
    bench.far.lost(NODE, bench.now)
    bench.tend(0.0)
    bench.tend(limits.DEAD_S + 1)
    bench.say(m.WORD_ENDED)
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("l"), 0, ""))
    bench.turn()
    bench.taken()  # lost on its way
    bench.tend(0.0)
    bench.tend(limits.PING_S + 0.1)
    bench.hear()
    assert bench.words[-1:] == [m.WORD_CLOSE] and identity("l") in bench.far
    bench.tend(limits.DEAD_S)
    assert identity("l") not in bench.far  # perhaps there is nobody to hear it


def test_a_connection_that_works_too_late_is_made_anew() -> None:
    """By way of the head the node has heard of a later way meanwhile."""
    bench = Far()
    bench.submit("a")
    bench.hear()
    bench.far.lost(NODE, bench.now)
    bench.tend(limits.RECONNECT_FIRST_S)
    bench.tend(limits.PEER_CONNECT_S - 0.01)
    assert bench.opened == [] and not bench.shut
    bench.tend(0.009)
    (node,) = bench.far.nodes.values()
    node.lost_at = 0.0
    bench.tend(0.0)
    assert node.by_head
    bench.far.on_link(NODE, m.Welcome(0, 1, bytes(16), 1, 1.0), bench.now)
    bench.tend(1.0)
    assert bench.shut == [NODE] and bench.opened and node.path > 3


def test_an_end_waits_for_what_came_before_it() -> None:
    bench = Far()
    for name in "ab":
        bench.submit(name)
    bench.hear()
    bench.stream.say(m.WORD_PAYLOAD, b"")
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("l"), 2, "(pid 7, node one)\ndied", 1))
    bench.turn()
    assert not bench.outcomes
    bench.stream = LeaseStream(1 << 20)
    bench.done("a")
    bench.hear()
    assert bench.outcomes[object_of("a")].value == b"v"
    assert bench.words[-1] == m.WORD_CLOSE
    bench.answer()  # it has heard that
    assert identity("l") not in bench.far


def test_a_node_that_is_lost_with_what_was_said_has_begun_what_it_says() -> None:
    bench = Far()
    for name in "ab":
        bench.submit(name)
    bench.hear()
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("l"), 1, "", 5))
    bench.turn()
    refusal = m.RelayRefused(0, NODE, ME, identity("l"), NodeDiedError.code, "the node is lost")
    bench.far.on_refused(refusal)
    bench.turn()
    task = bench.tasks._by_task
    assert [bool(task[identity(name)].failures) for name in "ab"] == [True, False]


@pytest.mark.parametrize("how", ["in peace", "it died", "refused"])
def test_an_end_of_which_the_head_knows_nothing_is_the_node_s_to_tell(how: str) -> None:
    bench = Far()
    for name in "ab":
        bench.submit(name)
    bench.hear()
    bench.leases.on_lease_ended(UNKNOWN)
    bench.turn()
    assert len(bench.tasks) == 2
    bench.done("a")
    assert bench.outcomes[object_of("a")].value == b"v"
    failed = {"in peace": False, "it died": True, "refused": True}[how]
    if how == "in peace":
        ended = codec.encode_local([m.LeaseEnded(0, identity("l"), 1)])[0]
        bench.say(m.WORD_PAYLOAD, ended)
    elif how == "it died":
        bench.say(m.WORD_ENDED)
    else:
        bench.far.on_refused(m.RelayRefused(0, NODE, ME, identity("l"), NodeDiedError.code, "lost"))
        bench.turn()
    (task,) = bench.tasks._by_task.values()
    assert (task.lease, bool(task.failures)) == (None, failed)


def test_what_the_head_learns_later_of_an_end_stands_for_that_it_knew_nothing() -> None:
    bench = Far()
    for name in "ab":
        bench.submit(name)
    bench.hear()
    for ended in (
        UNKNOWN,
        m.LeaseEnded(0, identity("l"), 1, "(pid 7, node one)\ndied", 1),
        UNKNOWN,
    ):
        bench.leases.on_lease_ended(ended)
    bench.say(m.WORD_ENDED)
    task = bench.tasks._by_task
    assert [bool(task[identity(name)].failures) for name in "ab"] == [True, False]


def test_a_worker_that_had_ended_its_lease_gets_no_second_chance() -> None:
    bench = Far()
    bench.submit("a")
    bench.hear()
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("l")))
    assert [spec.task_id for spec in bench.by_head] == [identity("a")]


def test_a_worker_out_of_its_nodes_reach_is_given_back() -> None:
    bench = Far()
    bench.submit("a")
    bench.hear()
    bench.say(m.WORD_ENDED, b"its socket cannot be reached")
    bench.back("a")
    bench.hear()
    assert [one.lease_id for one in bench.heads(m.Revoke)] == [identity("l")]
    bench.lease("near")
    assert bench.waiting(identity("lnear")) == ["a"]


def test_a_dead_worker_is_charged_with_what_it_had_begun() -> None:
    bench = Far(seconds=0.0001)
    for number in range(4):
        bench.submit(f"t{number}")
    bench.hear()
    assert bench.packets == [["t0", "t1", "t2", "t3"]]
    for task in bench.tasks._by_task.values():
        task.failures = 3
    bench.leases.on_lease_ended(m.LeaseEnded(0, identity("l"), 1, "(pid 7, node one)\nsignal 9"))
    assert bench.code("t0") == WorkerCrashedError.code
    assert {*bench.tasks._by_task} == {identity(f"t{number}") for number in (1, 2, 3)}


def test_junk_instead_of_what_a_worker_says_costs_the_lease_alone() -> None:
    bench = Far()
    bench.submit("a")
    bench.hear()
    bench.say(m.WORD_PAYLOAD, b"\xc1junk")
    bench.hear()
    assert [one.lease_id for one in bench.heads(m.Revoke)] == [identity("l")]
    assert identity("l") not in bench.far
