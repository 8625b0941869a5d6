"""What a cluster's processes use, asked of the nodes by way of the head, on a real cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from tests.cli.conftest import until
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.runtime import connection

PROGRAM = """
import sys, time
import numpy
import zray
zray.init(sys.argv[1])

@zray.remote(resources={"w1": 0.1})
def spin():
    kept = numpy.ones(8 << 20)
    while True:
        sum(range(1000))

ref = zray.put(numpy.ones(4 << 20))
task = spin.remote()
print("spins", flush=True)
sys.stdin.read()
"""


def test_figures_of_each_process_come_from_its_node(commands: Any) -> None:
    head = commands.head("--num-cpus", 1)
    worker = commands.worker(
        *("--name", "w1", "--address", head.address(), "--resources", "w1=1", "--num-cpus", 1)
    )
    path = commands.home / "program.py"
    path.write_text(PROGRAM)
    program = subprocess.Popen([sys.executable, str(path), head.address()], stdin=subprocess.PIPE)
    assert program.stdin is not None
    try:
        info = connection.find(None)
        assert info is not None
        with Operator(info, head.address()) as operator:
            nodes = {node.info.name: node.node_id for node in operator.nodes()}

            def busy() -> list[m.UsedBy]:
                (found,) = operator.measure([nodes["w1"]])
                assert found is not None
                return [one for one in found.processes if one.title == "spin"]

            until(lambda: busy() and busy()[0].usage.rss_bytes > 64 << 20, "it has its memory")
            (before,), began = busy(), time.monotonic()
            until(lambda: busy()[0].usage.cpu_s > before.usage.cpu_s + 0.3, "it uses CPU")
            (after,), seconds = busy(), time.monotonic() - began
            assert after.usage.cpu_s - before.usage.cpu_s < seconds + 0.5
            assert after.busy and after.kind == m.WORKER_PROCESS

            own, other = operator.measure([nodes["head"], nodes["w1"]])
            assert own is not None and other is not None
            daemons = {one.kind: one.usage.pid for one in own.processes if not one.worker_id}
            assert daemons[m.HEAD_PROCESS] == head.pid
            assert other.processes[0].usage.pid == worker.pid
            assert 0 < other.machine.memory_used_bytes < other.machine.memory_bytes
            assert own.store.used_bytes >= 32 << 20 and own.store.objects >= 1

            os.kill(worker.pid, signal.SIGSTOP)
            try:
                answers = operator.ask_all(
                    [m.Measure(0, operator.process_id, nodes["w1"])], timeout_s=0.5
                )
                assert answers == [None]
            finally:
                os.kill(worker.pid, signal.SIGCONT)
    finally:
        program.stdin.close()
        program.wait(20)
