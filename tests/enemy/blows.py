"""What befalls a cluster from outside: strangers, liars, pauses, full disks, and kill -9.

A blow does all of its own and heals it, so that after it the cluster has the daemons it had.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import zmq

from tests.enemy.besieged import Besieged
from tests.hostile import Nonsense, abstract_sockets, fill, knock, talk
from tests.real_cluster import Peer
from zray.core.head.roles import CLIENT_VERBS, NODE_VERBS
from zray.protocol import messages as m
from zray.runtime import sockets
from zray.runtime.connection import parse_address
from zray.runtime.keys import ClusterKey

Blow = Callable[[Besieged, random.Random], None]
GENTLE: dict[str, Blow] = {}  # after these nothing may fail
ROUGH: dict[str, Blow] = {}  # these take processes along, or their room
# Members who say that objects refer to each other in a circle: these are never free.
LIARS = {"a_driver_that_talks_nonsense", "a_node_that_talks_nonsense"}


def gentle(function: Blow) -> Blow:
    GENTLE[function.__name__] = function
    return function


def rough(function: Blow) -> Blow:
    ROUGH[function.__name__] = function
    return function


# ---- strangers and liars ------------------------------------------------------------------------


@gentle
def strangers_who_only_connect(besieged: Besieged, chance: random.Random) -> None:
    address = parse_address(besieged.cluster.address)
    with contextlib.ExitStack() as stack:
        for _ in range(chance.choice((10, 500))):
            stranger = stack.enter_context(socket.socket())
            stranger.setblocking(False)
            stranger.connect_ex(address)
        time.sleep(chance.uniform(0, 3))


@gentle
def other_protocols(besieged: Besieged, chance: random.Random) -> None:
    for _ in range(20):
        said = chance.choice((b"GET / HTTP/1.1\r\n\r\n", chance.randbytes(4096), b"\xff" * 10, b""))
        address = parse_address(besieged.cluster.address)
        with contextlib.suppress(OSError), socket.create_connection(address, 5) as stranger:
            stranger.sendall(said)


@gentle
def a_wrong_key(besieged: Besieged, chance: random.Random) -> None:
    context = sockets.context()
    peers = []
    try:
        for _ in range(chance.choice((1, 30))):
            key = ClusterKey.create().client()
            peer = context.socket(zmq.DEALER)
            peers.append(peer)
            peer.curve_serverkey = besieged.cluster.info().server_public
            peer.curve_publickey, peer.curve_secretkey = key.public, key.secret
            peer.connect(f"tcp://{besieged.cluster.address}")
        time.sleep(1)
    finally:
        context.destroy(0)


@contextlib.contextmanager
def member(besieged: Besieged, role: int) -> Iterator[Peer]:
    peer = besieged.cluster.peer(hello=False)
    try:
        hello = peer.hello(role)
        if role == m.ROLE_NODE:
            info = m.NodeInfo("liar", "127.0.0.1", os.getpid(), [("CPU", 10_000)], [], "")
            hello = msgspec.structs.replace(hello, node=info)
        peer.send(hello)
        peer.receive(m.Welcome, 60)
        yield peer
    finally:
        peer.close()


@gentle
def a_driver_that_talks_nonsense(besieged: Besieged, chance: random.Random) -> None:
    with member(besieged, m.ROLE_DRIVER) as peer:
        talk(peer, Nonsense(chance.randrange(1 << 30), [bytes(16)]), CLIENT_VERBS)
        peer.send(m.Goodbye(0, "enough"))


@rough
def a_node_that_talks_nonsense(besieged: Besieged, chance: random.Random) -> None:
    with member(besieged, m.ROLE_NODE) as peer:
        talk(peer, Nonsense(chance.randrange(1 << 30), [bytes(16)]), NODE_VERBS)
        peer.send(m.Goodbye(0, "enough"))


@gentle
def a_flood(besieged: Besieged, chance: random.Random) -> None:
    """As many PINGs in a frame as there is room for; the answers are not read."""
    with member(besieged, m.ROLE_OBSERVER) as peer:
        count = chance.choice((1000, 60_000))
        frame = msgspec.msgpack.encode((peer.epoch, [[5, 0, 1.0]] * count))
        for _ in range(20):
            peer.frames(m.KIND, frame)
        time.sleep(chance.uniform(0, 3))


@gentle
def garbage_in_frames(besieged: Besieged, chance: random.Random) -> None:
    with member(besieged, m.ROLE_OBSERVER) as peer:
        for size in (0, 1, 1000, 1_000_000, 60_000_000):
            peer.frames(m.KIND, chance.randbytes(min(size, 4096)) * max(1, size // 4096))
        peer.frames(m.KIND, bytes((64 << 20) + 1))
        time.sleep(1)


@gentle
def garbage_to_local_sockets(besieged: Besieged, chance: random.Random) -> None:
    """Those that daemons and actors listen at."""
    listening = [program.pid for program in besieged.daemons()]
    listening += [process.pid for process in besieged.workers()]
    for pid in listening:
        with contextlib.suppress(OSError, AssertionError):
            for name in abstract_sockets(pid):
                knock(name)


# ---- pauses -------------------------------------------------------------------------------------


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@gentle
def a_paused_head(besieged: Besieged, chance: random.Random) -> None:
    with paused(besieged.head().pid):
        time.sleep(chance.uniform(0.5, 8))


@gentle
def a_paused_node(besieged: Besieged, chance: random.Random) -> None:
    with paused(besieged.node(chance).pid):
        time.sleep(chance.uniform(0.5, 8))


@gentle
def paused_workers(besieged: Besieged, chance: random.Random) -> None:
    with contextlib.ExitStack() as stack:
        for process in besieged.workers():
            if chance.random() < 0.5:
                with contextlib.suppress(ProcessLookupError):
                    stack.enter_context(paused(process.pid))
        time.sleep(chance.uniform(0.5, 8))


@rough
def a_node_paused_for_too_long(besieged: Besieged, chance: random.Random) -> None:
    with paused(besieged.node(chance).pid):
        time.sleep(26)


@rough
def a_head_paused_for_long(besieged: Besieged, _chance: random.Random) -> None:
    with paused(besieged.head().pid):
        time.sleep(26)


# ---- ends ---------------------------------------------------------------------------------------


@rough
def killed_workers(besieged: Besieged, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 10))):
        if workers := besieged.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(workers).kill()
        time.sleep(chance.uniform(0, 0.5))


@rough
def a_killed_zygote(besieged: Besieged, chance: random.Random) -> None:
    for process in besieged.node(chance).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@rough
def a_killed_node(besieged: Besieged, chance: random.Random) -> None:
    besieged.replace_node(chance, lambda program: program.kill())


@rough
def a_stopped_node(besieged: Besieged, chance: random.Random) -> None:
    besieged.replace_node(chance, lambda program: program.stop(60))


@rough
def the_heads_own_node_killed(besieged: Besieged, _chance: random.Random) -> None:
    for process in besieged.own_node():
        process.kill()


@rough
def a_killed_head(besieged: Besieged, chance: random.Random) -> None:
    besieged.head().kill()
    time.sleep(chance.choice((0.0, 0.0, 1.0, 8.0)))
    besieged.start_head()


@rough
def a_head_killed_again_and_again(besieged: Besieged, chance: random.Random) -> None:
    for _ in range(3):
        besieged.head().kill()
        besieged.start_head()
        time.sleep(chance.uniform(0, 0.5))


@rough
def a_full_disk(besieged: Besieged, chance: random.Random) -> None:
    """Of the control store, the logs and what is spilled; they are on a disk of their own."""
    filler = fill(Path(besieged.cluster.home))
    time.sleep(chance.uniform(0.5, 10))
    filler.unlink()
