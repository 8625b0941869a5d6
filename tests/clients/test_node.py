"""The client in JavaScript: the example as a user runs it, and what a client must get right."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests.clients.conftest import CLIENTS, until
from tests.fake_heads import FakeHead
from zray.protocol import messages as m
from zray.runtime.keys import ClusterKey

pytestmark = pytest.mark.system  # node and npm


def edited(cluster: Any, path: Path, **fields: Any) -> str:
    """A connection file with other fields than the head's."""
    found = json.loads(cluster.connection.read_text())
    path.touch(0o600)
    path.write_text(json.dumps({**found, **fields}))
    return str(path)


def said(program: Any, *, code: int = 0) -> str:
    """What a script printed until it ended."""
    out, errors = program.communicate(timeout=40)
    assert program.returncode == code, out + errors
    return str(out)


# ---- the example ---------------------------------------------------------------------------


def test_the_example_calls_functions_and_an_actor(node: Any, cluster: Any) -> None:
    done = node.run("hello.mjs")

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"connected to default at {cluster.address()}, epoch 1"
    expected = [
        'hello.count(...) = {"the":2}',
        "hello.size(hello.repeat(...)) = 4000000",
        "hello.repeat(...) = 4000000 bytes",
        "hello.size(put(20 MB)) = 20000000",
        "1000 tasks at once: all right",
        '"code":"ZR-3001","typeName":"LookupError","functionName":"hello.fail",'
        '"message":"no town named Atlantis","node":"offers"',
        "    | LookupError: no town named Atlantis",
        "hello.cuont(...) raised ZR-3008 no node of this cluster offers 'hello.cuont'",
        "Totals.add(north, 1..4) = [1,3,6,10]",
        'Totals.totals() = {"north":10,"south":0.5}',
        "Totals.add(west) raised ZR-3001 KeyError 'west'",
        "Totals.history(20000) = 20000 rows",
        "Totals() without its argument: ZR-3402 because of TypeError",
        "all right",
    ]
    for text in expected:
        assert any(text in line for line in lines), (text, done.stdout)
    assert any("node=offers) counting 5 words" in line for line in lines), "what a task prints"
    assert done.stderr == ""


def test_its_packages_come_from_whatever_registry_is_set() -> None:
    lock = json.loads((CLIENTS / "node" / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def test_its_connection_file_may_be_given(node: Any, cluster: Any, tmp_path: Path) -> None:
    path = edited(cluster, tmp_path / "copy.json")
    os.rename(cluster.connection, cluster.connection.with_suffix(".moved"))

    assert node.run("hello.mjs", path).returncode == 0


def test_a_head_that_stands_by_leads_it_to_the_one_that_leads(
    node: Any, cluster: Any, tmp_path: Path
) -> None:
    key = ClusterKey.load(cluster.connection.with_name("cluster.key"))
    leader = m.HeadInfo(b"l" * 16, [cluster.address()], "here", 1, "1.0", 0.0, True)
    standby = FakeHead(key, 2)
    try:
        standby.stands_by(1, standby.info())  # of none that leads, at first
        path = edited(cluster, tmp_path / "copy.json", addresses=["127.0.0.1:9", standby.address])
        program = node.start("hello.mjs", path)
        until(lambda: len(standby.asked) > 1, "it is asked again")
        standby.stands_by(1, standby.info(), leader)
        out, errors = program.communicate(timeout=40)
        assert program.returncode == 0, out + errors
        assert out.startswith(f"connected to default at {cluster.address()}, epoch 1")
    finally:
        standby.close()


@pytest.mark.parametrize("fault", ["client key", "server key", "nobody", "mode", "no file"])
def test_what_is_wrong_is_said_in_one_line(
    node: Any, cluster: Any, tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "connection.json"
    public, secret = (key.decode() for key in zmq.curve_keypair())
    if fault == "client key":
        edited(cluster, path, client_public=public, client_secret=secret)
        words = "ZR-1401 the head at"
    elif fault == "server key":
        edited(cluster, path, server_public=public)
        words = "ZR-1402 what answers at"
    elif fault == "nobody":
        edited(cluster, path, addresses=["127.0.0.1:9"])
        words = "ZR-1405 nothing listens at 127.0.0.1:9"
    elif fault == "mode":
        edited(cluster, path)
        path.chmod(0o644)
        words = "ZR-4004"
    else:
        words = "ZR-4004 cannot read"

    done = node.run("hello.mjs", str(path))

    assert done.returncode == 1
    assert done.stderr.startswith(words)
    assert len(done.stderr.splitlines()) == 1
    assert secret not in done.stderr


# ---- what it holds, and lets go ------------------------------------------------------------


def test_what_is_dropped_is_freed_and_a_released_actor_ends(
    node: Any, observe: Callable[[], Any]
) -> None:
    program = node.script("""
        const totals = await client.createActor("hello.Totals", [["a"]]);
        const sleeper = await client.createActor("more.Sleeper");
        const large = client.submit("hello.repeat", [Buffer.from("x"), 1000000]);
        const rows = totals.call("history", [50000]);
        const stored = client.put(Buffer.alloc(1000000));
        await Promise.all([large, rows].map((ref) => client.get(ref)));
        console.log(await client.get(sleeper.call("pid")));
        await line();
        [large, rows, stored].forEach((ref) => client.drop(ref));
        totals.release();
        sleeper.release();
        await line();
    """)
    pid = int(program.stdout.readline())
    assert observe().objects >= 5

    program.stdin.write("drop\n")
    program.stdin.flush()

    until(lambda: not observe().objects, "everything is freed")
    until(lambda: not psutil.pid_exists(pid), "the actor has ended")
    assert [job.connected for job in observe().jobs] == [True]
    program.stdin.write("end\n")
    said(program)
    until(lambda: not observe().jobs, "the job has ended")


def test_a_program_that_closes_leaves_nothing(node: Any, observe: Callable[[], Any]) -> None:
    program = node.script("""
        const totals = await client.createActor("hello.Totals", [["a"]]);
        await client.get(totals.call("totals"));
        await client.get(client.put("kept"));
        client.submit("more.wait");
    """)
    said(program)

    until(lambda: not (observe().jobs or observe().objects), "nothing is left")


# ---- failures ------------------------------------------------------------------------------


def test_an_actor_that_dies_says_which_calls_may_have_run(node: Any) -> None:
    program = node.script("""
        const sleeper = await client.createActor("more.Sleeper", [], {}, { maxRestarts: 1 });
        console.log(await client.get(sleeper.call("pid")));
        const lost = sleeper.call("sleep");
        const error = await client.get(lost).catch((found) => found);
        console.log(error.code, error.maybeExecuted);
        console.log(await client.get(sleeper.call("count")));
    """)
    pid = int(program.stdout.readline())
    assert "sleeping" in program.stdout.readline()

    os.kill(pid, signal.SIGKILL)

    assert said(program).splitlines() == ["ZR-3403 true", "0"]


def test_the_end_of_the_head_ends_everything_with_an_error(node: Any, cluster: Any) -> None:
    program = node.script("""
        const sleeper = await client.createActor("more.Sleeper");
        const results = [client.submit("more.wait"), sleeper.call("sleep")];
        console.log("waits");
        for (const ref of results) {
            const error = await client.get(ref).catch((found) => found);
            console.log(error.code);
        }
    """)
    assert program.stdout.readline() == "waits\n"

    cluster.head.kill()

    assert [line for line in said(program).splitlines() if "sleeping" not in line] == [
        "ZR-1500"
    ] * 2


def test_values_are_what_both_languages_have(node: Any) -> None:
    program = node.script("""
        const echo = async (value) => client.get(client.submit("more.echo", [value]));
        const value = { a: [1, -1, 0.5, 2 ** 53 - 1, true, null, "\u00e4", {}], b: [] };
        console.log(JSON.stringify(await echo(value)) === JSON.stringify(value));
        const bytes = await echo(Uint8Array.of(0, 255));
        console.log(bytes instanceof Uint8Array, [...bytes].join());
        const large = await echo(Buffer.alloc(3_000_000, 7));
        console.log(large.length, large[2_999_999]);
        const several = client.submit("more.echo", ["ab"], {}, { numReturns: 2 });
        console.log((await Promise.all(several.map((ref) => client.get(ref)))).join());
        const error = await client.get(client.submit("more.pickle")).catch((found) => found);
        console.log(error.typeName, error.message);
    """)
    shown = said(program).splitlines()
    assert shown[:4] == ["true", "true 0,255", "3000000 7", "a,b"]
    assert shown[4].startswith("zray.errors.SerializationError ")
    assert (
        "the result of more.pickle is not portable (TypeError: can not serialize 'set'" in shown[4]
    )


def test_calls_take_large_arguments_and_references(node: Any) -> None:
    program = node.script("""
        const sleeper = await client.createActor("more.Sleeper");
        const bytes = Buffer.alloc(3_000_000, 7);
        const stored = client.put(bytes);
        const sizes = [bytes, stored, client.submit("more.echo", [bytes])]
            .map((value) => sleeper.call("size", [value]));
        console.log(await Promise.all(sizes.map((ref) => client.get(ref))));
        const calls = Array.from({ length: 3000 }, () => sleeper.call("pid"));
        await Promise.all(calls.map((ref) => client.get(ref)));
        console.log(await client.get(sleeper.call("count")));
        try { sleeper.call("size", [calls[0]]); } catch (error) { console.log(error.message); }
    """)
    shown = said(program).splitlines()
    assert shown[:2] == ["[ 3000000, 3000000, 3000000 ]", "3000"]
    assert shown[2].endswith("or the result of a call: pass its value")
