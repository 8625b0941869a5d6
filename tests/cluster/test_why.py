"""Why does it not run, or fail? The command and the program get the same answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest

import zray
from tests.real_cluster import until

GET_S = 30.0
ASK_S = 20.0


@zray.remote
def quick(*_: Any) -> int:
    return 1


def command(subject: str) -> list[dict[str, Any]]:
    """The causes that ``zray why`` prints."""
    line = [sys.executable, "-m", "zray", "why", "--json", subject]
    done = subprocess.run(line, capture_output=True, text=True, timeout=ASK_S, env={**os.environ})
    assert not done.stderr
    (answer,) = json.loads(done.stdout)
    found: list[dict[str, Any]] = answer["causes"]
    return found


def asked(thing: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = zray.why(thing).to_dict()["causes"]
    return found


def codes(causes: list[dict[str, Any]]) -> list[str]:
    return [one["code"] for one in causes]


def both(thing: Any, subject: str, *wanted: str) -> list[dict[str, Any]]:
    """What both surfaces say, once these are the codes of the chain."""

    def probe() -> list[dict[str, Any]] | None:
        found = asked(thing)
        return found if codes(found) == [*wanted] else None

    try:
        found = until(probe, ASK_S, f"{wanted}")
    except TimeoutError:
        raise AssertionError(f"not {wanted}:\n{zray.why(thing)}") from None
    told = command(subject)
    assert codes(told) == [*wanted]
    assert [one["text"] for one in told] == [one["text"] for one in found]
    return found


def details(cause: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["text"] for one in cause["details"]}


@pytest.fixture
def roomy(bare: Any) -> Any:
    """A head, and the node ``one`` with two CPUs; this process is a driver of it."""
    bare.start_head()
    bare.start_node("one", 2)
    bare.connect()
    return bare


# ---- resources ---------------------------------------------------------------------------------


def test_not_enough_is_free_now(roomy: Any, gate: Any) -> None:
    hold = zray.remote(num_cpus=2)(gate.wait)
    large = quick.options(num_cpus=2, name="large")
    first = hold.remote()
    both(first, first.hex(), "LEASED", "RUNNING")
    ref = large.remote()
    (waits,) = both(ref, ref.hex(), "WAIT_RESOURCES")
    assert "needs CPU 2; all of it is in use on every node that has it" in waits["text"]
    assert details(waits)["one"].startswith("0 of 2 CPU free, needs 2; taken by 1 ")
    assert "once that is free" in waits["advice"] and waits["since_s"] >= 0
    gate.open()
    assert zray.get([first, ref], timeout=GET_S) == [None, 1]
    (ended,) = both(ref, ref.hex(), "READY")
    assert "waits for nothing" in ended["text"]


def test_no_node_has_so_much_or_such_a_label(roomy: Any) -> None:
    never = quick.options(num_cpus=6).remote()
    (waits,) = both(never, never.hex(), "INFEASIBLE")
    assert details(waits)["one"] == "never: has 2 CPU in all, needs 6"
    assert waits["advice"] == "add a node that has it, or ask for less"

    nowhere = quick.options(label_selector={"zone": "eu"}).remote()
    (waits,) = both(nowhere, nowhere.hex(), "INFEASIBLE")
    assert "no node ever has the labels zone=eu" in waits["text"]
    assert details(waits)["one"] == "never: does not have the labels zone=eu"
    assert "--labels" in waits["advice"]
    roomy.start_node("two", 1, "--labels", "zone=eu")
    assert zray.get(nowhere, timeout=GET_S) == 1


def test_another_job_has_it(roomy: Any, gate: Any) -> None:
    other = roomy.run(
        "other",
        """
        import time, zray
        zray.init()
        @zray.remote(num_cpus=2)
        def hold(): time.sleep(600)
        refs = [hold.remote() for _ in range(3)]
        print("submitted", flush=True)
        zray.get(refs)
        """,
    )
    other.says("submitted")
    until(lambda: [one for one in roomy.status().nodes if one.running], ASK_S, "it runs")
    ref = quick.options(num_cpus=2).remote()

    def taken() -> dict[str, str] | None:
        found = details(asked(ref)[-1])
        return found if "one" in found else None

    found = until(taken, ASK_S, "the node is told of")
    assert "0 of 2 CPU free, needs 2; taken by 1 " in found["one"]
    assert "(other.py)" in found["one"]


# ---- chains ------------------------------------------------------------------------------------


def test_the_chain_of_arguments_is_followed_to_its_end(roomy: Any, gate: Any) -> None:
    hold = zray.remote(gate.wait)
    first = hold.options(name="first", num_cpus=2).remote()
    both(first, first.hex(), "LEASED", "RUNNING")
    second = quick.options(name="second", num_cpus=2).remote(first)
    third = quick.options(name="third", num_cpus=2).remote(second)
    chain = ("WAIT_DEPS", "WAIT_DEPS", "LEASED", "RUNNING")
    found = both(third, third.hex(), *chain)
    assert [one["name"] for one in found] == ["third", "second", "first", "first"]
    assert "waits for 1 of its arguments; the first is the result of second" in found[0]["text"]
    assert "runs in worker pid" in found[3]["text"] and "node one" in found[3]["text"]
    task = third.hex()[:32]
    assert codes(command(task)) == [*chain]  # by the task's own id as well
    gate.open()
    assert zray.get(third, timeout=GET_S) == 1


def test_what_a_task_waits_for_that_it_has_submitted(roomy: Any, gate: Any) -> None:
    hold = zray.remote(gate.wait)

    @zray.remote
    def outer() -> None:
        zray.get(hold.remote())

    ref = outer.remote()
    found = both(ref, ref.hex(), "LEASED", "BLOCKED", "RUNNING")
    assert "waits in worker pid" in found[1]["text"] and "in get or wait" in found[1]["text"]
    child = found[2]["id"]
    assert codes(command(child)) == ["RUNNING"]  # the head knows nothing of it
    gate.open()
    zray.get(ref, timeout=GET_S)


def test_what_a_leased_task_waits_for(roomy: Any, gate: Any) -> None:
    hold = zray.remote(gate.wait)

    @zray.remote
    def outer(first: bool) -> None:
        if not first:
            zray.get(hold.remote())

    zray.get([outer.remote(True) for _ in range(4)], timeout=GET_S)
    refs = [outer.remote(False) for _ in range(3)]
    both(refs[1], refs[1].hex(), "LEASED", "BLOCKED", "RUNNING")
    gate.open()
    zray.get(refs, timeout=GET_S)


def test_a_leased_task_waits_behind_a_long_one(roomy: Any, gate: Any) -> None:
    hold = zray.remote(gate.wait)
    refs = [hold.remote() for _ in range(6)]

    def waiting() -> Any:
        last = asked(refs[-1])
        return last if last[0]["code"] == "WAIT_RESOURCES" and last[0]["details"] else None

    own = until(waiting, ASK_S, "it waits for a leased worker")
    assert "leased to this process" in own[0]["text"]
    assert "runs wait" in details(own[0])["one"]
    told = command(refs[-1].hex())  # which only this process knows
    assert codes(told) == codes(own) == ["WAIT_RESOURCES", "WAIT_RESOURCES"]
    assert "0 of 2 CPU free, needs 1; taken by" in details(told[1])["one"]
    job = command(zray.get_runtime_context().get_job_id())
    assert codes(job) == ["RUNNING", "DRIVER"]
    assert "6 unfinished tasks" in job[0]["text"]
    gate.open()
    zray.get(refs, timeout=GET_S)


# ---- ends --------------------------------------------------------------------------------------


def test_what_failed_says_its_error_in_words(roomy: Any) -> None:
    @zray.remote
    def fails() -> None:
        raise ValueError("no such luck")

    ref = fails.remote()
    after = quick.remote(ref)
    zray.wait([ref, after], num_returns=2, timeout=GET_S)
    (failed,) = both(ref, ref.hex(), "FAILED")
    assert "fails raised ValueError: no such luck" in failed["text"]
    assert details(failed)["code"] == "ZR-3001" and "one, pid" in details(failed)["ran on"]
    (stopped,) = both(after, after.hex(), "FAILED")
    assert details(stopped)["so it could not run"] == "quick"


# ---- actors ------------------------------------------------------------------------------------


def test_an_actor_is_pending_lives_restarts_and_is_dead(roomy: Any) -> None:
    @zray.remote
    class Worker:
        def pid(self) -> int:
            return os.getpid()

    pending = Worker.options(num_cpus=0, resources={"rare": 1}).remote()
    call = pending.pid.remote()
    (waits,) = both(pending, pending._actor_id.hex(), "INFEASIBLE")
    assert waits["kind"] == "actor" and "no node ever has rare 1" in waits["text"]
    found = both(call, call.hex(), "WAIT_ACTOR", "INFEASIBLE")
    assert "Worker.pid waits here for the actor, which is PENDING" in found[0]["text"]

    actor = Worker.options(num_cpus=0, name="carl", max_restarts=-1, max_task_retries=-1).remote()
    process = psutil.Process(zray.get(actor.pid.remote(), timeout=GET_S))
    alive = both(actor, "carl", "ALIVE", "RUNNING")
    assert "lives on node" in alive[0]["text"] and f"pid {process.pid}" in alive[1]["text"]
    restarting = until(lambda: restart_told(actor), ASK_S, "it waits for its restart")
    assert "signal" in restarting["text"] or "SIGKILL" in restarting["text"]
    assert "it starts again in" in restarting["text"]
    assert "of any number" in details(restarting)["restarts"]

    zray.kill(actor)
    (dead,) = both(actor, "carl", "DEAD")  # by the name that it had, too
    assert "is dead: it was killed with zray.kill()" in dead["text"]


def restart_told(actor: Any) -> dict[str, Any] | None:
    """Kill the actor's process, and look for what is said until it lives again.

    The pause before a restart grows with each.
    """
    pid = zray.get(actor.pid.remote(), timeout=GET_S)
    psutil.Process(pid).kill()
    while True:
        found = asked("carl")
        if codes(found) == ["WAIT_RESTART"]:
            return found[0]
        if codes(found) == ["ALIVE", "RUNNING"] and f"pid {pid} " not in found[1]["text"]:
            return None


# ---- who does not answer -----------------------------------------------------------------------


@pytest.mark.slow_limit(60)
def test_a_node_that_is_stopped(roomy: Any, gate: Any) -> None:
    hold = zray.remote(num_cpus=2)(gate.wait)
    ref = hold.remote()
    both(ref, ref.hex(), "LEASED", "RUNNING")
    node = roomy.programs[1]
    node.signal(signal.SIGSTOP)
    found = asked(ref)
    assert codes(found)[0] == "LEASED"
    assert codes(found)[-1] in ("NO_ANSWER", "SUSPECT")  # as long as it may be on its way

    def silent() -> Any:
        told = asked(ref)
        return told if codes(told) == ["LEASED", "SUSPECT"] else None

    told = until(silent, ASK_S, "the node is known to be silent")[1]
    assert "node one" in told["text"] and "silent for" in told["text"]
    assert told["since_s"] >= 3 and f"pid {node.pid}" in told["advice"]
    assert codes(command("one")) == ["SUSPECT"]
    node.signal(signal.SIGCONT)
    gate.open()
    zray.get(ref, timeout=GET_S)


def test_a_program_that_is_stopped(roomy: Any) -> None:
    other = roomy.run(
        "other",
        """
        import time, zray
        zray.init()
        @zray.remote
        def hold(): time.sleep(600)
        refs = [hold.remote() for _ in range(9)]
        print("last", refs[-1].hex(), flush=True)
        zray.get(refs)
        """,
    )
    other.says("last")
    last = other.text().split("last ")[1].split()[0]
    until(lambda: command(last)[0]["code"] == "WAIT_RESOURCES", ASK_S, "its program tells")
    other.signal(signal.SIGSTOP)
    unknown, silent = command(last)
    assert (unknown["code"], silent["code"]) == ("UNKNOWN", "NO_ANSWER")
    assert f"driver pid {other.pid} on" in silent["text"] and "last heard of" in silent["text"]


def test_the_head_is_gone_and_its_last_word_is_told(roomy: Any, gate: Any) -> None:
    hold = zray.remote(num_cpus=2)(gate.wait)
    ref = hold.remote()
    both(ref, ref.hex(), "LEASED", "RUNNING")
    until(lambda: asked(ref)[0]["code"] == "LEASED" and heard(), ASK_S, "the head said how it is")
    roomy.head.signal(signal.SIGSTOP)

    def unheard() -> Any:
        found = zray.why(ref, timeout=0.5).to_dict()["causes"]
        return found if "has not answered for" in found[-1]["text"] else None

    found = until(unheard, ASK_S, "the head is known to be silent")
    assert codes(found) == ["SUBMITTED", "NO_ANSWER"]
    assert f"the head at {roomy.address} has not answered for" in found[-1]["text"]
    assert "; its last word, " in found[-1]["text"] and found[-1]["text"].endswith(" ago: OK")
    roomy.head.signal(signal.SIGCONT)
    roomy.head.kill()
    found = until(unheard, ASK_S, "the head is known to be gone")
    assert codes(found) == ["SUBMITTED", "NO_ANSWER"]
    roomy.start_head(port=-1)
    gate.open()
    zray.get(ref, timeout=GET_S)


def heard() -> bool:
    from zray.runtime import session

    participant: Any = session.current()
    return participant.client.last_word is not None


# ---- by itself ---------------------------------------------------------------------------------


@pytest.mark.slow_limit(60)
def test_a_get_and_a_wait_that_are_stuck_say_why_by_themselves(roomy: Any) -> None:
    source = """
        import sys, threading, zray
        zray.init()
        @zray.remote(num_cpus=6)
        def large(): pass
        @zray.remote
        def outer(): return zray.get(large.options(name="nested").remote())
        if sys.argv[1] == "get":
            refs = [zray.put(1), large.remote(), large.remote()]
            print("waits", refs[1].hex(), flush=True)
            zray.get(refs)
        elif sys.argv[1] == "wait":
            ref = large.remote()
            print("waits", ref.hex(), flush=True)
            zray.wait([ref])
        else:
            print("waits", flush=True)
            zray.get(outer.remote())
        """
    programs = {name: roomy.run(name, source, name) for name in ("get", "wait", "nested")}
    for name, program in programs.items():
        program.says("what would help: add a node that has it", 30)
        said = program.text()
        assert "zray: nothing has come for 1" in said and " s: " in said
        assert "INFEASIBLE: needs CPU 6; no node ever has CPU 6" in said
        assert "      one: never: has 2 CPU in all, needs 6" in said
        if name == "nested":
            continue
        ref = said.split("waits ")[1].split()[0]
        assert f"is object {ref}" in said
    assert "2 values are waited for; the first is" in programs["get"].text()
    assert "a value is waited for; it is" in programs["wait"].text()
