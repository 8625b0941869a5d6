"""``init`` and ``shutdown``: options, addresses, auto-init, and one cluster after another."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

import zray
from tests.api.conftest import Run, eventually, waits_in_get
from zray.errors import (
    AuthenticationError,
    ClusterShutdownError,
    HeadConnectionError,
    NothingListensError,
    NotInitializedError,
    NotZrayError,
    SerializationError,
    UnknownHostError,
)
from zray.nodes.options import HeadOptions, encode_node

pytestmark = pytest.mark.usefixtures("disconnected")


@zray.remote
def double(x: int) -> int:
    return 2 * x


# ---- auto-init -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda: zray.get(double.remote(2)) == 4,
        lambda: zray.get(zray.put(4)) == 4,
        lambda: zray.get_gpu_ids() == [],
        lambda: zray.get_runtime_context().get_task_id() is None,
    ],
    ids=["remote", "put", "get_gpu_ids", "get_runtime_context"],
)
def test_first_use_connects(use: Any) -> None:
    assert not zray.is_initialized()
    assert use()
    assert zray.is_initialized()


@pytest.mark.parametrize("use", [zray.nodes, zray.cluster_resources, zray.available_resources])
def test_questions_about_the_cluster_do_not_connect(use: Any) -> None:
    with pytest.raises(NotInitializedError, match=r"zray\.init\(\)"):
        use()
    assert not zray.is_initialized()


# ---- once, twice, again --------------------------------------------------------------------


def test_twice() -> None:
    first = zray.init(num_cpus=1)
    with pytest.raises(RuntimeError, match=r"Maybe you called zray\.init twice by accident"):
        zray.init()
    second = zray.init(ignore_reinit_error=True)
    assert second.address_info == first.address_info


def test_shutdown_and_init_again() -> None:
    zray.shutdown()  # nothing to do
    for cpus in (1, 3):
        zray.init(num_cpus=cpus)
        assert zray.cluster_resources()["CPU"] == cpus
        assert zray.get(double.remote(cpus)) == 2 * cpus
        zray.shutdown()
        zray.shutdown()
        assert not zray.is_initialized()


def test_with() -> None:
    with zray.init(num_cpus=1) as context:
        assert zray.is_initialized() and Mapping in type(context).__mro__
        assert context["address"] == context.address_info["address"] == context["gcs_address"]
        assert context.address_info["node_id"] == zray.nodes()[0]["NodeID"]
        assert len(context) == len(list(context)) and context.dashboard_url
        assert context.python_version == "{}.{}.{}".format(*sys.version_info[:3])
    assert not zray.is_initialized()


def test_shutdown_ends_those_who_wait() -> None:
    zray.init(num_cpus=1)

    @zray.remote
    def slow() -> None:
        time.sleep(60)

    caught: list[BaseException] = []

    def wait(ref: Any) -> None:
        try:
            zray.get(ref)
        except BaseException as error:
            caught.append(error)

    refs = [slow.remote() for _ in range(3)]
    future = refs[0].future()
    threads = [threading.Thread(target=wait, args=(ref,)) for ref in refs]
    for thread in threads:
        thread.start()
    eventually(lambda: all(map(waits_in_get, threads)))
    began = time.monotonic()
    zray.shutdown()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - began < 3
    assert [type(error) for error in caught] == [ClusterShutdownError] * 3
    assert isinstance(future.exception(1), ClusterShutdownError)


def test_references_of_a_former_cluster() -> None:
    zray.init(num_cpus=1)
    ref = double.remote(1)
    data = pickle.dumps(ref)
    zray.shutdown()
    assert repr(ref).endswith("disconnected)")
    with pytest.raises(NotInitializedError):
        ref.future()
    with pytest.raises(SerializationError, match=r"zray\.init"):
        pickle.loads(data)
    zray.init(num_cpus=1)
    del ref
    assert zray.get(double.remote(1)) == 2


# ---- options -------------------------------------------------------------------------------


def test_options_of_ray_are_accepted() -> None:
    zray.init(
        num_cpus=1,
        object_store_memory=10**8,
        include_dashboard=False,
        dashboard_host="127.0.0.1",
        dashboard_port=8265,
        job_config=None,
        configure_logging=True,
        logging_level="info",
        logging_format="%(message)s",
        log_to_driver=True,
        namespace="tests",
        runtime_env={},
        local_mode=False,
        _system_config={"x": 1},
        _temp_dir="/tmp/x",
        _node_name="here",
    )
    assert zray.get_runtime_context().namespace == "tests"
    assert zray.nodes()[0]["NodeName"] == "here"


def test_resources_and_labels() -> None:
    zray.init(
        num_cpus=1.5, num_gpus=0, resources={"disk": 0.5}, labels={"zone": "a"}, _memory=2**30
    )
    expected = {"CPU": 1.5, "disk": 0.5, "memory": 2**30}
    found = zray.cluster_resources()
    assert found == zray.available_resources()
    others = {"node:127.0.0.1", "node:__internal_head__", "object_store_memory"}
    assert found.items() >= expected.items() and found.keys() - expected.keys() == others
    (node,) = zray.nodes()
    assert node["Labels"] == {"zone": "a", "ray.io/node-id": node["NodeID"]}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"num_cpu": 1}, TypeError, "did you mean 'num_cpus'"),
        ({"nmespace": "x"}, TypeError, "did you mean 'namespace'"),
        ({"xyzzy": 1}, TypeError, "unexpected keyword argument 'xyzzy'"),
        ({"num_cpus": -1}, ValueError, "'CPU' must be from 0"),
        ({"num_cpus": "2"}, TypeError, "'CPU' must be a number"),
        ({"num_cpus": True}, TypeError, "'CPU' must be a number"),
        ({"num_cpus": float("nan")}, ValueError, "'CPU' must be from 0"),
        ({"num_gpus": 0.00001}, ValueError, "granularity"),
        ({"resources": {"CPU": 1}}, ValueError, "Use the 'num_cpus' option"),
        ({"resources": {"x": float("inf")}}, ValueError, "'x' must be from 0"),
        ({"resources": ["x"]}, TypeError, "resources must be a dict"),
        ({"resources": {1: 1}}, TypeError, "names in resources"),
        ({"labels": {"a": 1}}, TypeError, "values of labels"),
        ({"labels": "a"}, TypeError, "labels must be a dict"),
        ({"namespace": 1}, TypeError, "namespace must be a string"),
        ({"namespace": "n" * 300}, ValueError, "at most 256 characters"),
        ({"namespace": "\ud800"}, ValueError, "UTF-8"),
        ({"resources": {"n" * 300: 1}}, ValueError, "at most 256 characters"),
        ({"labels": {"a": "\ud800"}}, ValueError, "UTF-8"),
        ({"resources": {f"r{n}": 1 for n in range(9999)}}, ValueError, "at most 65536 bytes"),
        ({"address": 10001}, TypeError, "address must be a string"),
        ({"local_mode": "yes"}, TypeError, "local_mode"),
        ({"address": "http://127.0.0.1:10001"}, ValueError, "web address"),
        ({"address": "127.0.0.1:8265"}, ValueError, "dashboard"),
        ({"address": "127.0.0.1:99999"}, ValueError, "port"),
        ({"address": "ftp://127.0.0.1:1"}, ValueError, "unknown scheme"),
        ({"address": "127.0.0.1:1", "num_cpus": 1}, ValueError, "existing cluster"),
        ({"address": "auto", "resources": {"x": 1}}, ValueError, "existing cluster"),
        ({"address": "auto", "labels": {"x": "1"}}, ValueError, "existing cluster"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    began = time.monotonic()
    with pytest.raises(error, match=text):
        zray.init(**options)
    assert not zray.is_initialized() and time.monotonic() - began < 2


# ---- addresses -----------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[str]:
    """Something that listens and says nothing zray would say."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    connection.sendall(b"220 mail.example ESMTP\r\n")
                    connection.close()
            except OSError:
                pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_nothing_listens() -> None:
    began = time.monotonic()
    with pytest.raises(NothingListensError, match="nothing"):
        zray.init(f"127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 5


def test_not_zray(listener: str) -> None:
    began = time.monotonic()
    with pytest.raises(NotZrayError):
        zray.init(listener)
    assert time.monotonic() - began < 5


def test_unknown_host() -> None:
    began = time.monotonic()
    with pytest.raises(UnknownHostError, match="no-such-host"):
        zray.init("no-such-host.invalid:10001")
    assert time.monotonic() - began < 5


def test_auto_without_a_head() -> None:
    with pytest.raises(HeadConnectionError, match="no head runs on this machine"):
        zray.init("auto")


def test_local_starts_a_cluster_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZRAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(NothingListensError):
        zray.init()
    with pytest.raises(ValueError, match="as ZRAY_ADDRESS or RAY_ADDRESS says"):
        zray.init(num_cpus=1)
    with zray.init("local", num_cpus=1):
        assert zray.get(double.remote(1)) == 2


@pytest.mark.parametrize("prefix", ["ZRAY", "RAY"])
def test_the_environment_says_the_namespace_unless_init_is_told(
    monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv(f"{prefix}_NAMESPACE", "set")
    with zray.init(num_cpus=1):
        assert zray.get_runtime_context().namespace == "set"
    with zray.init(num_cpus=1, namespace="given"):
        assert zray.get_runtime_context().namespace == "given"


SECOND = """
    context = zray.init(*sys.argv[1:])

    @zray.remote
    def where():
        return os.getppid()

    print(context.address_info["address"], zray.get(where.remote()), len(zray.nodes()))
"""


def test_other_drivers_join(run: Run) -> None:
    context = zray.init(num_cpus=2)
    address = context.address_info["address"]

    @zray.remote
    def zygote() -> int:
        import os

        return os.getppid()

    expected = f"{address} {zray.get(zygote.remote())} 1\n"
    assert run(SECOND, address).stdout == expected
    assert run(SECOND, f"zray://{address}").stdout == expected
    assert run(SECOND, f"ray://{address}").stdout == expected
    assert run(SECOND, "auto").stdout == expected
    assert run(SECOND, ZRAY_ADDRESS=address).stdout == expected
    assert zray.get(double.remote(4)) == 8  # the others' leaving changed nothing here


def test_without_the_key(run: Run, tmp_path: Any) -> None:
    address = zray.init(num_cpus=1).address_info["address"]
    text = """
        from zray.errors import AuthenticationError
        began = time.monotonic()
        try:
            zray.init(sys.argv[1])
        except AuthenticationError as error:
            print(time.monotonic() - began < 2, error)
    """
    found = run(text, address, ZRAY_HOME=str(tmp_path / "home")).stdout
    assert found.startswith("True ZR-1401") and "connection.json" in found
    assert AuthenticationError.code == "ZR-1401"


def test_init_in_a_task() -> None:
    zray.init(num_cpus=2)

    @zray.remote
    def again() -> tuple[str, bool]:
        try:
            zray.init()
        except RuntimeError as error:
            text = str(error)
        zray.shutdown()  # a task leaves its cluster by ending
        zray.init(ignore_reinit_error=True)
        return text, zray.is_initialized()

    text, connected = zray.get(again.remote())
    assert "zray.init twice" in text and connected


def test_several_threads_use_it_first() -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(zray.get(double.remote(1)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 8


def test_a_head_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZRAY_HOME", "/proc/nowhere")
    with pytest.raises(zray.errors.ZrayError, match="/proc/nowhere"):
        zray.init()
    assert not zray.is_initialized()


def test_a_head_whose_program_was_interrupted_ends_without_a_word(tmp_path: Path) -> None:
    options = HeadOptions(name="local-left", local=True, port=0)
    found = {**options._asdict(), "node": encode_node(options.node), "data_directory": None}
    found["dashboard"] = options.dashboard._asdict()
    gone, ready = os.pipe()
    os.close(gone)
    lifeline, end = os.pipe()
    os.close(end)
    command = [sys.executable, "-m", "zray.nodes.head.local_main", json.dumps(found)]
    done = subprocess.run(
        [*command, str(ready), str(lifeline)],
        pass_fds=(ready, lifeline),
        env={**os.environ, "ZRAY_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    os.close(ready)
    os.close(lifeline)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_import_is_light() -> None:
    text = (
        "import sys, zray; heavy = {'zmq', 'msgspec', 'cloudpickle', 'asyncio', 'logging'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.usefixtures("disconnected")
def test_after_its_cluster_was_lost_a_program_starts_afresh() -> None:
    @zray.task
    def work() -> int:
        return 1

    zray.init(num_cpus=1)
    ref = work.remote()
    assert zray.get(ref) == 1
    for process in psutil.Process().children():
        process.kill()
        process.wait(10)
    with pytest.raises(ClusterShutdownError, match="head has ended"):
        zray.get(work.remote(), timeout=10)
    with zray.init(num_cpus=1):
        assert zray.get(work.remote(), timeout=10) == 1


def test_a_program_whose_directory_is_gone(run: Run, tmp_path: Any) -> None:
    done = run(
        f"""
        os.mkdir("{tmp_path}/gone")
        os.chdir("{tmp_path}/gone")
        os.rmdir("{tmp_path}/gone")
        sys.path.insert(0, "relative")
        zray.init(num_cpus=1)

        @zray.task
        def double(number):
            return 2 * number

        print(zray.get(double.remote(4)))
        """
    )
    assert done.stdout == "8\n"
