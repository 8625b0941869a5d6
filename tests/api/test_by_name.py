"""Functions and actor classes that nodes offer by name, called by a program without their code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually

ROOT = Path(__file__).parents[2]
MODULE = """
    import asyncio
    import os
    from pathlib import Path

    import zray

    @zray.task(name="town.count")
    def count(words, *, least=1):
        found = {word: words.count(word) for word in words}
        return {word: number for word, number in found.items() if number >= least}

    @zray.remote(offer="town.split")
    def split(text):
        return text.split(" ")

    @zray.task(offer="town.set")
    def as_set(words):
        return {*words}

    @zray.task(offer="town.flaky", retry_exceptions=[OSError])
    def flaky(path):
        runs = Path(path)
        runs.write_text(runs.read_text() + "." if runs.exists() else ".")
        if len(runs.read_text()) < 3:
            raise OSError("not yet")
        return len(runs.read_text())

    @zray.task(offer="town.missing")
    def missing(name):
        raise LookupError(f"no town named {name}")

    @zray.actor(offer="town.Register")
    class Register:
        def __init__(self, start=0, *, step=1):
            self.number, self.step = start, step

        def add(self, times=1):
            self.number += times * self.step
            return self.number

        def pair(self):
            return self.number, None

        def own(self):
            return self

    @zray.remote(offer="town.Gate")
    class Gate:
        def __init__(self):
            self.open = asyncio.Event()

        async def wait(self):
            await self.open.wait()
            return "through"

        async def unlock(self):
            self.open.set()
"""


class Cluster:
    """A head whose node offers the module, and another node that offers nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[subprocess.Popen[bytes]] = []

    def start_all(self) -> None:
        (self.folder / "town.py").write_text(textwrap.dedent(MODULE))
        options = ["--port", "0", "--num-cpus", "2", "--import", "town"]
        self.address = self.start("zray.cli.head", *options)
        bare = ["--name", "bare", "--num-cpus", "8", "--resources", "bare=1"]
        self.start("zray.cli.worker", "--address", self.address, *bare)

    def start(self, module: str, *options: str) -> str:
        output = self.folder / f"{module}.out"
        with output.open("wb") as file:
            program = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.programs.append(program)

        def ready() -> bool:
            assert program.poll() is None, output.read_text()
            return "READY" in output.read_text()

        eventually(ready, 20.0)
        return output.read_text().partition("READY at ")[2].partition(" ")[0]

    def stop(self) -> None:
        for program in reversed(self.programs):
            program.send_signal(signal.SIGTERM)
            program.wait(15)


@pytest.fixture(scope="module")
def town(
    _module_leaves_nothing: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    cluster = Cluster(tmp_path_factory.mktemp("town"))
    try:
        cluster.start_all()
        with zray.init(cluster.address):
            get(zray.put(bytes(1 << 20)))  # what a driver opens at first use stays open
            yield
    finally:
        cluster.stop()


def get(ref: Any) -> Any:
    return zray.get(ref, timeout=20)


# ---- functions -----------------------------------------------------------------------------


def test_a_function_is_called_by_its_name(town: None) -> None:
    count = zray.task_by_name("town.count")
    assert get(count.remote(["a", "b", "a"], least=2)) == {"a": 2}
    assert "town" not in sys.modules


def test_references_are_arguments_whoever_made_their_values(town: None) -> None:
    @zray.task
    def words() -> list[str]:
        return ["x", "x"]

    count, split = zray.task_by_name("town.count"), zray.task_by_name("town.split")
    assert get(count.remote(split.remote("a b a"), least=zray.put(2))) == {"a": 2}
    assert get(count.remote(words.remote())) == {"x": 2}


def test_large_arguments_and_results_travel(town: None) -> None:
    text = "word " * 300_000
    assert len(get(zray.task_by_name("town.split").remote(text))) == 300_001


def test_the_number_of_returns_is_the_callers_choice(town: None) -> None:
    split = zray.task_by_name("town.split")
    refs: Any = split.options(num_returns=3).remote("a b c")
    assert get(refs) == ["a", "b", "c"]
    assert split.options(num_returns=0).remote("a") is None


def test_a_result_that_is_not_portable_names_its_type(town: None) -> None:
    with pytest.raises(zray.errors.SerializationError, match=r"result of town\.set.*'set'"):
        get(zray.task_by_name("town.set").remote(["a"]))


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, {1}, 2**64, [zray.task_by_name("x")]], ids=type)
def test_an_argument_that_is_not_portable_is_refused_here(town: None, value: Any) -> None:
    with pytest.raises(zray.errors.SerializationError, match=r"argument of town\.count"):
        zray.task_by_name("town.count").remote(value)


def test_what_it_raises_arrives_as_its_own_type(town: None) -> None:
    with pytest.raises(LookupError, match="no town named Ur") as caught:
        get(zray.task_by_name("town.missing").remote("Ur"))
    assert isinstance(caught.value, zray.errors.TaskError)


def test_it_is_retried_as_its_definition_says(town: None, tmp_path: Path) -> None:
    assert get(zray.task_by_name("town.flaky").remote(str(tmp_path / "runs"))) == 3


def test_an_unknown_name_says_what_the_node_imports(town: None) -> None:
    unknown = zray.task_by_name("town.cuont")
    with pytest.raises(zray.errors.NameNotOfferedError) as caught:
        get(unknown.remote())
    assert caught.value.code == "ZR-3008"
    text = str(caught.value)
    assert "no node of this cluster offers 'town.cuont' (offered: town.Gate, town.Reg" in text
    assert "--import MODULE" in text


def test_calls_go_to_nodes_that_offer_the_name_though_others_are_idle(town: None) -> None:
    split = zray.task_by_name("town.split")
    assert get([split.remote("a b") for _ in range(100)]) == [["a", "b"]] * 100
    registers = [zray.actor_class_by_name("town.Register").remote() for _ in range(4)]
    assert get([register.add.remote(2) for register in registers]) == [2] * 4


def test_what_waits_for_a_node_that_offers_it_says_so(town: None) -> None:
    bare = zray.task_by_name("town.count").options(num_cpus=0, resources={"bare": 0.1})
    with pytest.raises(zray.errors.GetTimeoutError, match=r'needs bare 0\.1, an offer of "town\.'):
        zray.get(bare.remote([]), timeout=0.5)


def test_a_class_is_no_function_and_the_reverse(town: None) -> None:
    with pytest.raises(zray.errors.NameNotOfferedError, match="is an actor class"):
        get(zray.task_by_name("town.Register").remote())
    actor = zray.actor_class_by_name("town.count").remote()
    with pytest.raises(zray.errors.ActorDiedError, match="is a function, and an actor class was"):
        get(actor.add.remote())


def test_tasks_call_by_name_too(town: None) -> None:
    @zray.task
    def outer() -> Any:
        return zray.get(zray.task_by_name("town.split").remote("a b"))

    assert get(outer.remote()) == ["a", "b"]


@pytest.mark.parametrize("options", [{"name": "x"}, {"retry_exceptions": True}, {"offer": "x"}])
def test_options_of_the_definition_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        zray.task_by_name("town.count").options(**options)


@pytest.mark.parametrize(
    ("name", "error"), [("", ValueError), ("x" * 257, ValueError), (1, TypeError)]
)
def test_a_bad_name_is_refused(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        zray.task_by_name(name)
    with pytest.raises(error):
        zray.actor_class_by_name(name)


# ---- actors --------------------------------------------------------------------------------


def test_an_actor_is_made_by_the_name_of_its_class(town: None) -> None:
    register = zray.actor_class_by_name("town.Register").remote(10, step=2)
    assert get([register.add.remote(), register.add.remote(times=2)]) == [12, 16]


def test_its_results_are_portable_or_an_error(town: None) -> None:
    register = zray.actor_class_by_name("town.Register").remote()
    first, second = get(register.pair.options(num_returns=2).remote())
    assert (first, second) == (0, None)
    with pytest.raises(zray.errors.SerializationError, match=r"town\.Register\.own.*'Register'"):
        get(register.own.remote())
    with pytest.raises(zray.errors.SerializationError, match=r"argument of town\.Register\.add"):
        register.add.remote((1,))


def test_a_method_that_is_not_there_is_an_error_of_the_call(town: None) -> None:
    register = zray.actor_class_by_name("town.Register").remote()
    with pytest.raises(AttributeError, match="nothing"):
        get(register.nothing.remote())
    assert not hasattr(register, "_private")


def test_a_named_actor_is_found_and_its_handle_travels(town: None) -> None:
    options = {"name": "register", "namespace": "town"}
    keep = zray.actor_class_by_name("town.Register").options(**options).remote(1)

    @zray.task
    def add(handle: Any) -> Any:
        return zray.get(handle.add.remote(4))

    assert get(add.remote(zray.get_actor("register", "town"))) == 5
    assert get(keep.add.remote()) == 6


def test_async_methods_run_at_once(town: None) -> None:
    gate = zray.actor_class_by_name("town.Gate").remote()
    waiting = gate.wait.remote()
    get(gate.unlock.remote())
    assert get(waiting) == "through"


def test_an_unknown_class_is_the_cause_of_the_actors_death(town: None) -> None:
    actor = zray.actor_class_by_name("town.Regsiter").remote()
    with pytest.raises(zray.errors.ActorDiedError, match=r"no node .* offers 'town\.Regsiter'"):
        get(actor.add.remote())


# ---- definitions ---------------------------------------------------------------------------


def test_an_offer_has_its_name_alone() -> None:
    @zray.task(offer="alone")
    def first() -> None:
        pass

    with pytest.raises(ValueError, match=r"'alone' is offered by .*first and .*second"):

        @zray.task(offer="alone")
        def second() -> None:
            pass

    del first

    @zray.actor(offer="alone")
    class Third:
        pass

    assert Third().__class__.__name__ == "Third"


def test_a_definition_that_runs_again_replaces_itself() -> None:
    for _ in range(2):

        @zray.task(offer="again")
        def again() -> None:
            pass


def test_a_display_name_may_be_that_of_several_functions() -> None:
    @zray.remote(name="shown")
    def one() -> None:
        pass

    @zray.remote(name="shown")
    def two() -> None:
        pass


def test_what_is_offered_can_be_garbage() -> None:
    import gc
    import weakref

    @zray.task(name="garbage", offer="rubbish")
    def garbage() -> None:
        pass

    alive = weakref.ref(garbage)
    del garbage
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("offer", ["", "x" * 257])
def test_a_bad_offer_is_refused(offer: str) -> None:
    with pytest.raises(ValueError, match="offer"):
        zray.task(offer=offer)
    with pytest.raises(ValueError, match="offer"):
        zray.actor(offer=offer)
    with pytest.raises(TypeError, match="offer"):
        zray.remote(offer=1)


def test_an_offer_is_made_where_it_is_defined() -> None:
    @zray.task
    def plain() -> None:
        pass

    with pytest.raises(ValueError, match="offer"):
        plain.options(offer="later")
