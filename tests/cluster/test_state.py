"""What users ask of the cluster's state, by Python and by command: the same true answer."""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import subprocess
import sys
from typing import Any

import pytest

import zray
from zray.errors import TaskError
from zray.nodes.driver.observer import Observer
from zray.protocol import messages as m
from zray.util import state

SECRET = "\x1b[31m<script>"


def command(bare: Any, *arguments: str) -> Any:
    """What ``zray ... --json`` says."""
    ran = subprocess.run(
        [sys.executable, "-m", "zray", *arguments, "--json", "--address", bare.address],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return json.loads(ran.stdout)


def summary(of: str = "tasks") -> dict[str, Any]:
    found: dict[str, Any] = getattr(state, f"summarize_{of}")()["cluster"]["summary"]
    return found


def test_all_tasks_of_all_ways_are_counted_and_failures_are_there_with_their_reason(
    bare: Any,
) -> None:
    """Leased tasks, those by way of the head, those that tasks submit, and calls."""
    bare.start_head()
    bare.start_node("one", 2)
    bare.connect()

    @zray.remote
    def leased() -> None:
        pass

    @zray.remote(num_cpus=0)
    def by_head() -> None:
        pass

    @zray.remote
    def near() -> None:
        pass

    @zray.remote
    def parent() -> None:
        zray.get([near.remote() for _ in range(50)])

    @zray.remote(name=SECRET, max_retries=0)
    def fails() -> None:
        raise ValueError(SECRET)

    @zray.remote
    class Counter:
        def add(self) -> None:
            pass

        def fails(self) -> None:
            raise KeyError("k")

    zray.get([leased.remote() for _ in range(3000)])
    zray.get([by_head.remote() for _ in range(100)])
    zray.get(parent.remote())
    counter = Counter.remote()
    zray.get([counter.add.remote() for _ in range(200)])
    for ref in (fails.remote(), counter.fails.remote()):
        try:
            zray.get(ref)
        except TaskError:
            pass
    expected = {
        "leased": {"FINISHED": 3000},
        "by_head": {"FINISHED": 100},
        "near": {"FINISHED": 50},
        "parent": {"FINISHED": 1},
        "Counter.__init__": {"FINISHED": 1},
        "Counter.add": {"FINISHED": 200},
        "Counter.fails": {"FAILED": 1},
        SECRET: {"FAILED": 1},
    }

    def counted() -> bool:
        found = {
            name.rpartition(">.")[2]: {k: n for k, n in one["state_counts"].items() if n}
            for name, one in summary().items()
        }
        return found == expected

    bare.until(counted, 10, "everything is counted")
    failed = state.list_tasks(filters=[("state", "=", "FAILED")], detail=True)
    by_name = {one.name.rpartition(">.")[2]: one for one in failed}
    assert set(by_name) == {SECRET, "Counter.fails"}
    assert by_name[SECRET].error_type == "TASK_EXECUTION_EXCEPTION"
    assert by_name[SECRET].error_message == f"ValueError: {SECRET}"
    assert by_name["Counter.fails"].actor_id in repr(counter)
    told = command(bare, "list", "tasks", "--filter", "state=failed")
    assert {row["task_id"] for row in told["rows"]} == {one.task_id for one in failed}
    one = state.get_task(by_name[SECRET].task_id)
    assert isinstance(one, state.api.TaskState) and one.error_message == f"ValueError: {SECRET}"
    assert state.get_task("00" * 16) is None


def test_what_a_program_did_is_known_when_it_has_ended(bare: Any) -> None:
    """Though its workers end with it, at once."""
    bare.start_head()
    bare.start_node("one", 2)
    source = """
        import zray

        zray.init()

        @zray.remote
        def works(): pass

        @zray.remote(max_retries=0)
        def fails():
            raise ValueError("the reason")

        @zray.remote
        class Counter:
            def add(self): pass

        counter = Counter.remote()
        zray.get([works.remote() for _ in range(500)])
        zray.get([counter.add.remote() for _ in range(300)])
        zray.get(fails.remote())
    """
    for number in range(3):
        driver = bare.run(f"driver{number}", source)
        assert driver.wait(30) == 1
    bare.until(lambda: not bare.status().jobs, 5, "the jobs have ended")

    def counted() -> bool:
        told = command(bare, "summary", "tasks")["summary"]
        counts = {name: told[name]["state_counts"] for name in told}
        return counts == {
            "works": {"FINISHED": 1500},
            "fails": {"FAILED": 3},
            "Counter.__init__": {"FINISHED": 3},
            "Counter.add": {"FINISHED": 900},
        }

    bare.until(counted, 10, "everything is counted")
    failed = command(bare, "list", "tasks", "--filter", "state=FAILED", "--detail")["rows"]
    assert [row["error_message"] for row in failed] == ["ValueError: the reason"] * 3
    jobs = command(bare, "list", "jobs", "--detail")["rows"]
    assert [job["status"] for job in jobs] == ["SUCCEEDED"] * 3
    assert {job["driver_info"]["pid"] for job in jobs}


def test_why_is_it_pending_and_what_runs(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one")
    bare.connect()

    @zray.remote
    def sleeps() -> None:
        import time

        time.sleep(600)

    @zray.remote(num_gpus=3)
    def never() -> None:
        pass

    @zray.remote
    def after(value: Any) -> None:
        pass

    refs = [sleeps.remote(), never.remote()]
    refs.append(after.remote(refs[1]))

    def told() -> dict[str, Any] | None:
        found = {one.name.rpartition(">.")[2]: one for one in state.list_tasks()}
        runs = found.get("sleeps")
        return found if runs is not None and runs.state == "RUNNING" and len(found) == 3 else None

    found = bare.until(told, 10, "all three are listed")
    assert found["sleeps"].worker_pid and found["sleeps"].node_id
    assert found["never"].state == "PENDING_NODE_ASSIGNMENT"
    assert found["never"].reason.startswith("INFEASIBLE: needs CPU 1, GPU 3")
    assert found["after"].state == "PENDING_ARGS_AVAIL"
    assert found["after"].reason.startswith("WAIT_DEPS")
    assert state.list_tasks(filters=[("state", "!=", "RUNNING")], limit=1).truncated  # type: ignore[attr-defined]
    ids = {ref.task_id().hex() for ref in refs}
    assert {one.task_id for one in found.values()} == ids
    zray.cancel(refs[0], force=True)


def test_why_did_it_die(bare: Any) -> None:
    bare.start_head()
    node = bare.start_node("one", 2)
    bare.connect()

    @zray.remote(max_retries=0)
    def works() -> int:
        import os
        import time

        print("works", os.getpid(), flush=True)
        time.sleep(600)
        return os.getpid()

    @zray.remote
    class Holder:
        def pid(self) -> int:
            import os

            return os.getpid()

    holder = Holder.remote()
    pid = zray.get(holder.pid.remote())
    ref = works.remote()
    (runs,) = bare.until(
        lambda: state.list_tasks(filters=[("state", "=", "RUNNING")]), 10, "it runs"
    )
    import os

    os.kill(runs.worker_pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    try:
        zray.get(ref)
    except zray.errors.WorkerCrashedError:
        pass

    def dead() -> Any:
        failed = state.list_tasks(filters=[("error_type", "=", "WORKER_DIED")], detail=True)
        actors = state.list_actors(filters=[("state", "=", "DEAD")], detail=True)
        return (failed[0], actors[0]) if failed and actors else None

    task, actor = bare.until(dead, 10, "both are told of as dead")
    assert task.task_id == ref.task_id().hex() and "SIGKILL" in task.error_message
    assert "SIGKILL" in actor.death_cause["error_message"]
    workers = state.list_workers(filters=[("is_alive", "=", "false")], detail=True)
    assert {one.pid for one in workers} == {runs.worker_pid, pid}
    assert {one.exit_type for one in workers} == {"SYSTEM_ERROR"}
    node.kill()
    wanted = [("state", "=", "DEAD")]
    (found,) = bare.until(lambda: state.list_nodes(filters=wanted), 30, "the node is told of")
    assert found.node_name == "one" and found.state_message
    assert any("node one" in one.message for one in state.list_cluster_events(limit=2))


def test_who_holds_what(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one")
    bare.connect()

    @zray.remote
    def keeps(values: list[Any]) -> None:
        import time

        time.sleep(600)

    value = zray.put(b"x" * 2_000_000)
    ref = keeps.remote([value])

    def told() -> Any:
        found = state.list_objects(filters=[("object_id", "=", value.hex())])
        return found[0] if found and found[0].object_size >= 2_000_000 else None

    found = bare.until(told, 10, "the object is listed")
    assert (found.type, found.reference_type, found.state) == ("DRIVER", "LOCAL_REFERENCE", "READY")
    assert state.get_objects(value.hex())[0].node_ids
    assert summary("objects")["LOCAL_REFERENCE"]["total_size_mb"] > 1.9
    zray.cancel(ref, force=True)


def test_tasks_may_ask_as_well(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one")
    bare.connect()

    @zray.remote
    def asks() -> tuple[str, str, Any]:
        from zray.util import state

        me = zray.get_runtime_context().get_task_id()
        (node,) = state.list_nodes(filters=[("node_name", "=", "one")])
        try:
            state.list_nodes(filters=[("colour", "=", "red")])
        except ValueError as error:
            return me, node.node_id, str(error)
        return me, node.node_id, None

    ref = asks.remote()
    me, node_id, refused = zray.get(ref)
    assert me == ref.task_id().hex() and "'colour'" in refused
    found = state.get_node(node_id)
    assert found is not None and found.node_name == "one"


def test_tasks_that_are_not_to_be_told_of_are_not(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one")
    bare.connect()

    @zray.remote(enable_task_events=False)
    def silent() -> None:
        pass

    @zray.remote(enable_task_events=False)
    class Silent:
        def works(self) -> None:
            pass

    @zray.remote
    class Mixed:
        @zray.method(enable_task_events=False)
        def hushed(self, fails: bool = False) -> None:
            assert not fails

        def heard(self) -> None:
            pass

        def fails(self) -> None:
            raise AssertionError

    @zray.remote
    class Async:
        async def says(self) -> None:
            await asyncio.sleep(0)

    @zray.remote
    def loud() -> None:
        pass

    actor, mixed = Silent.remote(), Mixed.remote()
    zray.get([mixed.hushed.remote() for _ in range(10)])
    with pytest.raises(AssertionError):
        zray.get(mixed.hushed.remote(True))
    zray.get(mixed.heard.remote())
    unheard = mixed.fails.options(enable_task_events=False)
    for method in (unheard, pickle.loads(pickle.dumps(unheard))):
        with pytest.raises(AssertionError):
            zray.get(method.remote())
    at_once = Async.remote()
    zray.get([at_once.says.options(enable_task_events=False).remote() for _ in range(10)])
    zray.get([silent.remote() for _ in range(100)])
    zray.get([actor.works.remote() for _ in range(100)])
    zray.get(loud.remote())
    told = {"loud", "Mixed.__init__", "Mixed.heard", "Async.__init__"}
    counted = lambda: {name.rpartition(">.")[2] for name in summary()}  # noqa: E731
    bare.until(lambda: counted() >= told, 10, "what is to be told of is counted")
    assert counted() == told
    names = {one.name.rpartition(">.")[2] for one in state.list_tasks(limit=1000)}
    assert names <= told


def test_a_page_for_each_of_a_hundred_thousand_tasks(bare: Any) -> None:
    """Whoever reads them all sees each once, and the head serves others meanwhile."""
    bare.start_head()
    bare.connect()

    @zray.remote(num_gpus=1)
    def waits() -> None:
        pass

    refs = [waits.remote() for _ in range(100_000)]
    with Observer(bare.info(), bare.info().addresses[0]) as observer:
        bare.until(lambda: observer.page(m.TASKS, limit=1).total == len(refs), 30, "all wait")
        seen: dict[bytes, None] = {}
        cursor = b""
        while True:
            page = observer.page(m.TASKS, cursor=cursor)
            seen.update(dict.fromkeys(row.task_id for row in page.tasks))
            cursor = page.cursor
            if not cursor:
                break
        assert len(seen) == len(refs)
        (group,) = observer.summary(m.TASKS).groups
        assert dict(group.states) == {m.PENDING_NODE_ASSIGNMENT: len(refs)}


def test_what_is_asked_for_with_a_head_that_was_started_again(bare: Any) -> None:
    """What there is, is there; what was over is forgotten, and that shows in the numbers."""
    head = bare.start_head()
    bare.start_node("one")
    bare.connect()

    @zray.remote
    class Holder:
        def ready(self) -> None:
            pass

    holder = Holder.options(lifetime="detached", name="stays").remote()
    zray.get(holder.ready.remote())
    head.kill()
    head.wait(10)
    bare.start_head(port=-1)
    bare.until(lambda: bare.status().health == "OK", 30, "the head has recovered")

    def told() -> bool:
        workers = state.list_workers(filters=[("worker_type", "=", "WORKER")])
        (actor,) = state.list_actors()
        if actor.state != "ALIVE" or actor.pid not in [one.pid for one in workers]:
            return False
        (worker,) = state.list_workers(filters=[("actor_id", "=", actor.actor_id)])
        return worker.pid == actor.pid

    bare.until(told, 20, "the actor and its worker are listed")
    zray.kill(holder)
