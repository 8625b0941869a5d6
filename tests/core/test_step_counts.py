"""A message costs what it answers: its steps do not grow with all that there is besides."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from msgspec.structs import replace

from tests.core.benches import (
    FUNCTION,
    HeadBench,
    RayletBench,
    identity,
    object_of,
    somebody,
    template,
)
from zray import limits
from zray.core import bundles
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.protocol import messages as m
from zray.protocol.codec import Payload

FEW, MORE, MANY = 100, 10_000, 100_000
COSTLY = 30_000  # as many of what takes long to make
WORK = template()
WIDE = template("wide", resources=[("CPU", 4)])
IDLE = template("idle", resources=[("nothing", 1)])  # which no node has
DRIVER = identity("d")
WORKER = identity("w")


def steps(action: Callable[[], Any]) -> int:
    """How many lines of Python an action runs."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def number(kind: str, index: int) -> bytes:
    return kind.encode() + index.to_bytes(15, "big")


def task(kind: str, index: int, made_of: m.Template = IDLE, **fields: Any) -> m.TaskSpec:
    return m.TaskSpec(number(kind, index), made_of.template_id, b"arguments", **fields)


def function(index: int) -> tuple[m.Export, m.Template]:
    function_id = number("f", index)
    made = m.Template(0, number("t", index), function_id, f"f{index}", [("CPU", 1)], 1, 3)
    return m.Export(0, function_id, f"f{index}", b"code"), made


def create(index: int) -> m.CreateActor:
    info = m.ActorInfo("Actor", FUNCTION, [], name=f"name{index}", namespace=f"space{index % 50}")
    return m.CreateActor(0, DRIVER, DRIVER, task("a", index), info)


# ---- the head ------------------------------------------------------------------------------


def head_with(count: int) -> HeadBench:
    """So many of everything: tasks, children, functions, actors, names, objects, pulls, keys."""
    head = HeadBench()
    head.node("n", cpus=4)
    head.node("other", cpus=0)
    head.driver("d", WORK, WIDE, IDLE)
    head.driver("bystander", WORK, IDLE)
    other = identity("bystander")
    tasks = [task("x", index, parent=number("p", index)) for index in range(count)]
    head.hear("bystander", m.Submit(0, other, other, tasks))
    waits = [object_of(number("u", 0))]
    head.hear(
        "bystander",
        m.Submit(0, other, other, [task("y", i, dependencies=waits) for i in range(count)]),
    )
    for index in range(min(count, COSTLY)):
        held = object_of(number("o", index))
        head.hear("bystander", m.Put(0, other, m.Outcome(held, m.VALUE, 5, b"value")))
        head.hear("bystander", *function(index))
        head.hear("bystander", m.Kv(0, "put", number("k", index), b"value"))
        head.hear("bystander", m.Watch(0, other, object_of(number("v", index))))
        head.hear("bystander", m.ActorWatch(0, other, [number("z", index)]))
        head.hear("bystander", m.Pull(0, index, object_of(number("w", index))))
        head.hear("bystander", m.Demand(0, other, other, [("CPU", index + 1)], 0, 5))
        made = replace(create(index), job_id=other, owner=other)
        head.hear("bystander", made)
    head.turn()
    for route in [*head.sent]:
        head.taken(route)
    return head


def head_steps(count: int) -> dict[str, int]:
    head = head_with(count)
    found: dict[str, int] = {}

    def measure(what: str, route: str, *messages: m.Message) -> None:
        found[what] = steps(lambda: head.say(route, *messages))

    measure("nothing", "d", m.Ping(0, 0.0))
    measure("submit", "d", m.Submit(0, DRIVER, DRIVER, [task("1", 0, WORK)]))
    measure("submit infeasible", "d", m.Submit(0, DRIVER, DRIVER, [task("2", 0)]))
    parent = number("2", 0)
    measure("submit child", "d", m.Submit(0, DRIVER, DRIVER, [task("3", 0, parent=parent)]))
    measure("cancel", "d", m.Cancel(0, parent, False, True))
    value = m.Outcome(object_of(number("1", 0)), m.VALUE, 5, b"value")
    measure("done", "n", m.Done(1, [m.TaskDone(number("1", 0), 1, m.FINISHED, [value])]))
    measure("acknowledge", "d", m.ResultAck(0, DRIVER, 1))
    measure("drop", "d", m.Drop(0, DRIVER, object_of(number("1", 0))))
    export, made = function(MANY + 1)
    measure("export", "d", export)
    measure("template", "d", made)
    measure("forget", "d", m.Forget(0, export.function_id))
    put = object_of(number("q", 0))
    measure("put", "d", m.Put(0, DRIVER, m.Outcome(put, m.VALUE, 5, b"value")))
    measure("hold", "d", m.Hold(0, DRIVER, put))
    measure("watch", "d", m.Watch(0, DRIVER, object_of(number("r", 0))))
    measure("pull", "n", m.Pull(0, 1, object_of(number("r", 1)), True))
    measure("pull of what is here", "n", m.Pull(0, 2, put))
    measure("have", "n", m.Have(0, put))
    measure("drop again", "d", m.Drop(0, DRIVER, put))
    measure("promise", "d", m.Promise(0, DRIVER, object_of(number("r", 2))))
    measure("create", "d", create(MANY + 1))
    measure("find", "d", m.FindActor(0, DRIVER, "space0", "name0"))
    measure("watch actor", "d", m.ActorWatch(0, DRIVER, [number("a", 0)]))
    measure("watch no actor", "d", m.ActorWatch(0, DRIVER, [number("b", 0)]))
    measure("list", "d", m.ListActors(0, "a space without names", False))
    measure("kill", "d", m.KillActor(0, number("a", MANY + 1), True))
    measure("kv put", "d", m.Kv(0, "put", b"key", b"value"))
    measure("kv keys", "d", m.Kv(0, "keys", b"key"))
    measure("kv delete", "d", m.Kv(0, "delete", b"key"))
    measure("demand", "d", m.Demand(0, DRIVER, DRIVER, [("CPU", 10_000)], 2))
    ids = [grant.lease_id for grant in head.taken("n", m.Grant)]
    leases = [m.HeldLease(lease, DRIVER, DRIVER, [("CPU", 10_000)], WORKER) for lease in ids]
    assert len(leases) == 2
    measure("leased", "n", *(m.Leased(0, lease, "machine", "n") for lease in leases))
    measure("demand again", "d", m.Demand(0, DRIVER, DRIVER, [("CPU", 10_000)], 0, 9))
    measure("nothing while there are leases", "d", m.Ping(0, 0.0))
    cancel = m.CancelLeased(0, ids[0], number("l", 0), 1, False)
    measure("cancel of a leased task", "d", cancel)
    measure("lease ended", "n", m.LeaseEnded(2, ids[0]))
    measure("submit for which a lease ends", "d", m.Submit(0, DRIVER, DRIVER, [task("l", 1, WIDE)]))
    assert head.taken("n", m.Revoke)
    measure("worker submits", "n", m.Submit(0, DRIVER, WORKER, [task("4", 0)]))
    measure("worker died", "n", m.WorkerDied(0, WORKER))
    measure("announce", "other", m.Announce(0, [], [], []))
    measure("node leaves", "other", m.Goodbye(0, "bye"))
    measure("driver leaves", "d", m.Goodbye(0, "bye"))
    return found


@pytest.fixture(scope="module")
def few_at_the_head() -> dict[str, int]:
    return head_steps(FEW)


@pytest.mark.parametrize("count", [MORE, MANY])
def test_the_head(few_at_the_head: dict[str, int], count: int) -> None:
    check(few_at_the_head, head_steps(count))


def group_steps(groups: int, nodes: int) -> dict[str, int]:
    """With so many placement groups on so many nodes, and as many that wait."""
    head = HeadBench()
    for index in range(nodes):
        head.node(f"n{index}", cpus=4)
    head.driver("d", WORK)
    found: dict[str, int] = {}

    def create(kind: str, index: int, cpus: int) -> m.CreateGroup:
        return m.CreateGroup(0, number(kind, index), DRIVER, 1, [m.Bundle([("CPU", cpus)])] * 2)

    def answer(what: str, outcome: int) -> None:
        """All nodes that were asked to take a step have done so."""
        for name, sent in [*head.sent.items()]:
            asked = [one for one in sent if isinstance(one, m.Reserve) and one.step != m.COMMIT]
            said = [m.Reserved(0, one.group_id, one.round, outcome) for one in asked]
            head.taken(name)
            if said:
                found[what] = found.get(what, 0) + steps(partial(head.say, name, *said))

    head.say("d", *(create("g", index, 1) for index in range(groups)))
    head.say("d", *(create("w", index, 1_000_000) for index in range(groups)))
    for _ in range(groups // limits.GROUPS_PLACED_MAX + 1):
        answer("", m.PREPARED)
        head.turn()
    assert sum(one.is_whole() for one in head.gcs.placement.values()) == groups
    found.clear()
    one = create("g", groups, 1)
    found["create"] = steps(lambda: head.say("d", one))
    answer("prepared", m.PREPARED)
    needed = [(name, much / 10_000) for name, much in bundles.needed([], one.group_id, 0)]
    within = template("within", resources=needed)
    head.say("d", within)
    submit = m.Submit(0, DRIVER, DRIVER, [task("1", 0, within)])
    found["submit into it"] = steps(lambda: head.say("d", submit))
    head.sent.clear()
    found["remove"] = steps(lambda: head.say("d", m.RemoveGroup(0, one.group_id)))
    answer("released", m.RELEASED)
    found["nothing"] = steps(lambda: head.say("d", m.Ping(0, 0.0)))
    return found


def test_placement_groups_at_the_head() -> None:
    few = group_steps(20, 8)
    check(few, group_steps(2_000, 8))
    check(few, group_steps(20, 500))


def contended_steps(count: int) -> dict[str, int]:
    """While so many tasks wait for what is leased."""
    head = HeadBench()
    head.node("n", cpus=2, credit=1)
    head.driver("d", WORK)
    head.say("d", m.Demand(0, DRIVER, DRIVER, [("CPU", 10_000)], 2))
    ids = [grant.lease_id for grant in head.taken("n", m.Grant)]
    head.driver("bystander", WORK)
    other = identity("bystander")
    tasks = [task("x", index, WORK) for index in range(count)]
    found: dict[str, int] = {}
    head.hear("bystander", m.Submit(0, other, other, tasks))
    found["revoke"] = steps(head.turn)
    assert len(head.taken("n", m.Revoke)) == len(ids) == 2
    found["nothing"] = steps(lambda: head.say("d", m.Ping(0, 0.0)))
    found["lease ended"] = steps(lambda: head.say("n", m.LeaseEnded(1, ids[0])))
    return found


def test_contention_at_the_head() -> None:
    check(contended_steps(FEW), contended_steps(MORE))


def busy_nodes_steps(count: int, waiting: int) -> dict[str, int]:
    """With so many nodes, all busy, with tasks ahead; ``waiting``: more of each driver for each."""
    head = HeadBench()
    for index in range(count):
        head.node(f"n{index}", cpus=2, machine=f"machine{index}")
    drivers = [f"d{index}" for index in range(8)]
    for name in drivers:
        head.driver(name, WORK)
    turns = iter(range(1, 1 << 30))
    made = iter(range(1 << 30))

    def submit(name: str, tasks: int) -> m.Submit:
        specs = [task("x", next(made), WORK) for _ in range(tasks)]
        return m.Submit(0, identity(name), identity(name), specs)

    def done(name: str) -> m.Done:
        held = next(iter(head.gcs.members.nodes[identity(name)].view.assigned))
        outcome = m.Outcome(object_of(held), m.VALUE, 5, b"value")
        return m.Done(next(turns), [m.TaskDone(held, 1, m.FINISHED, [outcome], 0.02)])

    for name in drivers:
        head.say(name, submit(name, count // 2))
    head.say("n0", done("n0"))  # now it is known how long they take
    for name in drivers:
        head.say(name, submit(name, waiting * count))
    found: dict[str, int] = {}

    def measure(what: str, route: str, *messages: m.Message) -> None:
        found[what] = steps(lambda: head.say(route, *messages))

    for name in ("n1", "n2", "n3"):
        head.say(name, done(name))
    measure("nothing", "d1", m.Ping(0, 0.0))
    measure("done", "n4", done("n4"))
    measure("submit", "d2", submit("d2", 1))
    measure("credit", "n5", m.Credit(0, 1 << 41))
    measure("demand", "d2", m.Demand(0, identity("d2"), identity("d2"), WORK.resources, 5))
    measure("nothing while it is open", "d1", m.Ping(0, 0.0))
    for index in range(count):  # all that was sent is done, so there is room everywhere
        name = f"n{index}"
        while not waiting and head.gcs.members.nodes[identity(name)].view.assigned:
            head.say(name, done(name))
    head.say("d3", submit("d3", 1))
    measure("submit again", "d3", submit("d3", 3))
    measure("nothing at last", "d1", m.Ping(0, 0.0))
    return found


@pytest.mark.parametrize("waiting", [0, 2])
def test_many_nodes_at_the_head(waiting: int) -> None:
    check(busy_nodes_steps(64, waiting), busy_nodes_steps(512, waiting))


# ---- the raylet ----------------------------------------------------------------------------


def raylet_steps(count: int) -> dict[str, int]:
    """With so many functions, objects, ends to be acknowledged, and so much of a worker's."""
    bench = RayletBench(cpus=1)
    bench.head(WORK)
    bench.give(task("1", 0, WORK))
    (worker,) = bench.workers()
    for index in range(count):
        oid = object_of(number("o", index))
        bench.raylet.session.receive(Payload(1, [*function(index)], []), bench.now)
        bench.raylet.objects.put(m.Outcome(oid, m.VALUE, 5, b"value"))
        for message in (
            m.Submit(0, DRIVER, worker, [task("s", index)]),
            m.Hold(0, worker, oid),
            m.Watch(0, worker, object_of(number("v", index))),
            m.Kv(index, "get", b"key"),
            m.Pull(0, index, object_of(number("w", index))),
        ):
            bench.raylet.worker_message(worker, message, bench.now)
    bench.turn()
    found: dict[str, int] = {}

    def head(what: str, *messages: m.Message) -> None:
        found[what] = steps(lambda: bench.head(*messages))

    def works(what: str, *messages: m.Message) -> None:
        found[what] = steps(lambda: bench.worker(worker, *messages))

    export, made = function(MANY + 1)
    head("nothing", m.Pong(0, 0.0, "OK"))
    head("function", export, made)
    head("forget", m.Forget(0, export.function_id))
    head("free", m.Free(0, object_of(number("o", 0))))
    head("tasks", m.Tasks(0, [m.Assignment(1, DRIVER, task("2", 0, WORK))]))
    head("cancel", m.CancelTask(0, number("2", 0), 1, False))
    outcome = m.Outcome(object_of(number("s", 0)), m.VALUE, 5, b"value")
    head("result", m.Result(0, worker, [outcome]))
    head("answer", m.KvReply(0, 1, False))
    works("submit", m.Submit(0, DRIVER, worker, [task("3", 0)]))
    works("hold", m.Hold(0, worker, object_of(number("q", 0))))
    works("drop", m.Drop(0, worker, object_of(number("q", 0))))
    works("watch", m.Watch(0, worker, object_of(number("q", 1))))
    works("put", m.Put(0, worker, m.Outcome(object_of(number("q", 2)), m.VALUE, 5, b"value")))
    works("template", made)
    works("let go", m.Forget(0, export.function_id))
    works("ask", m.Kv(MANY + 1, "get", b"key"))
    done = m.Outcome(object_of(number("1", 0)), m.VALUE, 5, b"value")
    works("done", m.Done(0, [m.TaskDone(number("1", 0), 1, m.FINISHED, [done])]))
    head("acknowledged", m.Ack(0, 1))
    return found


def test_the_raylet() -> None:
    check(raylet_steps(FEW), raylet_steps(MORE))


def near_steps(count: int) -> dict[str, int]:
    """With so many tasks of a worker's that only its node knows, queued and ended."""
    bench = RayletBench(cpus=1)
    bench.head(WORK)
    bench.give(task("1", 0, WORK))
    (worker,) = bench.workers()
    bench.worker(worker, m.Blocked(0))
    raylet = bench.raylet

    def submit(kind: str, index: int) -> m.Submit:
        return m.Submit(0, DRIVER, worker, [task(kind, index, WORK, parent=number("1", 0))])

    def end(kind: str, index: int) -> m.Done:
        value = m.Outcome(object_of(number(kind, index)), m.VALUE, 5, b"value")
        return m.Done(0, [m.TaskDone(number(kind, index), 1, m.FINISHED, [value], 1.0)])

    for index in range(count):
        raylet.worker_message(worker, submit("e", index), bench.now)
        bench.turn()
        runner = next(slot for slot in raylet.scheduler.workers if slot != worker)
        raylet.worker_message(runner, end("e", index), bench.now)
    for index in range(count):
        raylet.worker_message(worker, submit("q", index), bench.now)
    bench.turn()
    assert raylet.scheduler.queued_near == count - 2  # one runs, one is behind it
    found: dict[str, int] = {}

    def works(what: str, who: bytes, *messages: m.Message) -> None:
        found[what] = steps(lambda: bench.worker(who, *messages))

    found["nothing"] = steps(lambda: bench.head(m.Pong(0, 0.0, "OK")))
    works("submit", worker, submit("n", 0))
    works("drop", worker, m.Drop(0, worker, object_of(number("e", 0))))
    works("publish what is there", worker, m.Publish(0, object_of(number("e", 1))))
    works("publish what waits", worker, m.Publish(0, object_of(number("q", 5))))
    works("publish what runs", worker, m.Publish(0, object_of(number("q", 0))))
    works("cancel", worker, m.Cancel(0, number("q", 6), False, True))
    works("done", runner, end("q", 0))
    works("done without the head", runner, end("q", 1))
    bench.now += 1  # and the head is told how many there are
    found["nothing, later"] = steps(lambda: bench.head(m.Crowded(0, False)))
    return found


def test_near_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("NEAR_TASKS", "NEAR_WAIT_S", "RAYLET_UNSTARTED_TASKS"):
        monkeypatch.setattr(limits, bound, 1 << 30)
    check(near_steps(FEW), near_steps(MORE))


# ---- the client ----------------------------------------------------------------------------


def client_steps(count: int) -> dict[str, int]:
    """With so many tasks submitted, in the backlog, awaited and dropped, and so many objects."""
    client = Client(somebody(DRIVER), remote=True)
    client.receive(Payload(1, [m.Welcome(0, 1, b"c" * 16, 1, 1.0)], []), 0.0)
    client.template(IDLE)

    def submit() -> bytes:
        return client.submit(m.TaskSpec(client.new_task(), IDLE.template_id, b""), 1)[0]

    submitted: list[bytes] = []
    for index in range(count):
        for message in function(index):
            client.export(message) if isinstance(message, m.Export) else client.template(message)
        submitted.append(submit())
        client.want_value(submitted[-1], Waiter(lambda: None))
        client.references.put(b"value", [])
        client.references.add(object_of(number("o", index)))
        client.ask(lambda seq: m.Kv(seq, "get", b"key"), Waiter())
    client.flush()
    client.tasks.in_flight += 1 << 30  # the window is full
    for _ in range(count):
        client.references.remove(submit())
        submit()
    client.flush()
    client.outbox.clear()
    found: dict[str, int] = {}

    def measure(what: str, action: Callable[[], Any]) -> None:
        found[what] = steps(lambda: (action(), client.flush()))

    held = [submit()]
    measure("nothing", lambda: None)
    measure("submit", lambda: held.append(submit()))
    measure("drop", lambda: client.references.remove(held[1]))
    measure("cancel in the backlog", lambda: client.cancel(held[0][:16], False, True))
    measure("callbacks", client.has_callbacks)
    measure("wait", lambda: client.want_value(held[0], Waiter()))

    def wait(number: int) -> list[int]:
        waiter = client.want_some(submitted, number, whole=True)
        client.forget_some(waiter)
        return client.first_ready(submitted, number, whole=True)

    measure("wait for some", lambda: wait(1))
    measure("put", lambda: held.append(client.references.put(b"value", [])))
    measure("own", lambda: client.references.remove(held[2]))
    measure("borrow", lambda: client.references.add(object_of(number("q", 0))))
    first = next(iter(client.unresolved))
    outcome = m.Outcome(object_of(first), m.VALUE, 5, b"value")
    measure("result", lambda: client.message(m.Result(1, DRIVER, [outcome])))
    assert wait(3) == [0]
    measure("wait for some of which one is ready", lambda: wait(3))
    measure("wait for one that is ready", lambda: client.first_ready(submitted, 1, whole=True))
    measure("answer", lambda: client.message(m.KvReply(0, 1, False)))
    return found


def test_the_client() -> None:
    check(client_steps(FEW), client_steps(MORE))


def check(few: dict[str, int], many: dict[str, int]) -> None:
    grown = {what: (few[what], n) for what, n in many.items() if n > 1.3 * few[what] + 40}
    assert not grown
