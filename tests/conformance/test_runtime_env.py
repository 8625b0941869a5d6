"""Contracts of ``runtime_env``: environment variables of jobs, tasks and actors."""

from __future__ import annotations

import os
import signal

import pytest
import ray
import ray.runtime_env

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def value(name="COLOUR"):
    return os.environ.get(name)


@ray.remote
class Actor:
    def value(self, name="COLOUR"):
        return os.environ.get(name)

    def value_below(self, name="COLOUR"):
        return ray.get(value.remote(name))

    def pid(self):
        return os.getpid()


def env(**variables):
    """The option with these."""
    return {"env_vars": variables}


def colour(text):
    """The option with one."""
    return env(COLOUR=text)


# ---- tasks and actors ------------------------------------------------------------------------


def test_a_task_has_its_variables() -> None:
    """``env_vars`` are in the task's ``os.environ``, and not in others' nor in the driver's."""
    assert ray.get(value.options(runtime_env=colour("red")).remote()) == "red"
    assert ray.get(value.remote()) is None
    assert "COLOUR" not in os.environ


def test_tasks_with_different_variables_run_in_different_processes() -> None:
    """A process has one environment for its life."""

    @ray.remote
    def who():
        return os.environ.get("COLOUR"), os.getpid()

    variants = [who, *(who.options(runtime_env=colour(each)) for each in ("red", "blue"))]
    found = ray.get([each.remote() for _ in range(5) for each in variants])
    colours = {pid: set() for _, pid in found}
    for each, pid in found:
        colours[pid].add(each)

    assert {each for each, _ in found} == {None, "red", "blue"}
    assert all(len(each) == 1 for each in colours.values())


def test_many_tasks_with_variables() -> None:
    """Each of them has them."""
    red = value.options(runtime_env=colour("red"))
    assert set(ray.get([red.remote() for _ in range(200)])) == {"red"}


def test_the_decorator_has_the_environment() -> None:
    """``@ray.remote(runtime_env=...)`` is for every call."""

    @ray.remote(runtime_env=colour("red"))
    def f():
        return os.environ["COLOUR"]

    assert ray.get(f.remote()) == "red"


def test_options_replace_the_decorators_environment() -> None:
    """What ``options`` says is instead of what the decorator says, not beside it."""

    @ray.remote(runtime_env=env(COLOUR="red", SIZE="1"))
    def f():
        return os.environ.get("COLOUR"), os.environ.get("SIZE")

    assert ray.get(f.options(runtime_env=colour("blue")).remote()) == ("blue", None)
    assert ray.get(f.remote()) == ("red", "1")


def test_an_actor_has_its_variables() -> None:
    """In its methods, and none of another actor's."""
    red, plain = Actor.options(runtime_env=colour("red")).remote(), Actor.remote()
    assert ray.get([red.value.remote(), plain.value.remote()]) == ["red", None]


def test_an_actor_has_its_variables_in_its_constructor() -> None:
    """Before any code of the class runs."""

    @ray.remote(runtime_env=colour("red"))
    class Early:
        found = os.environ.get("COLOUR")

        def __init__(self):
            self.mine = os.environ.get("COLOUR")

        def get(self):
            return self.mine

    assert ray.get(Early.remote().get.remote()) == "red"


def test_a_restarted_actor_has_its_variables() -> None:
    """The environment is the actor's, whatever process it lives in."""
    actor = Actor.options(runtime_env=colour("red"), max_restarts=1, max_task_retries=-1).remote()
    os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)
    assert ray.get(actor.value.remote(), timeout=30) == "red"


def test_a_retried_task_has_its_variables(tmp_path) -> None:
    """The same for the next attempt of a task."""

    @ray.remote(runtime_env=colour("red"), max_retries=1)
    def dies_once():
        if not (tmp_path / "ran").exists():
            (tmp_path / "ran").touch()
            os._exit(1)
        return os.environ["COLOUR"]

    assert ray.get(dies_once.remote(), timeout=30) == "red"


def test_libraries_see_the_variables_when_they_are_imported() -> None:
    """They are set before any of the user's code, as ``OMP_NUM_THREADS`` has to be."""
    threads = value.options(runtime_env=env(OMP_NUM_THREADS="3"))
    assert ray.get(threads.remote("OMP_NUM_THREADS")) == "3"


def test_python_path_counts() -> None:
    """Modules are found in what ``PYTHONPATH`` says there."""

    @ray.remote
    def path():
        import sys

        return sys.path

    found = ray.get(path.options(runtime_env=env(PYTHONPATH="/some/where:/else")).remote())
    assert "/some/where" in found
    assert "/else" in found


def test_an_empty_value_is_a_value() -> None:
    """The variable is there."""
    assert ray.get(value.options(runtime_env=colour("")).remote()) == ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/some:${HOME}", "/some:" + os.environ.get("HOME", "")),
        ("a${NO_SUCH_VARIABLE}b", "ab"),
        ("100%", "100%"),
        ("a=b", "a=b"),
    ],
)
def test_variables_in_values(text, wanted) -> None:
    """``${NAME}`` is replaced by what the worker has, or by nothing."""
    assert ray.get(value.options(runtime_env=colour(text)).remote()) == wanted


# ---- inheritance -----------------------------------------------------------------------------


def test_children_inherit_the_environment() -> None:
    """A task of a task has the variables of its parent."""

    @ray.remote
    def outer():
        return ray.get(value.remote())

    assert ray.get(outer.options(runtime_env=colour("red")).remote()) == "red"


def test_a_childs_environment_is_added_to_its_parents() -> None:
    """Of the same name the child's counts."""

    @ray.remote
    def inner():
        return [os.environ.get(name) for name in ("COLOUR", "SIZE", "SHAPE")]

    @ray.remote
    def outer():
        return ray.get(inner.options(runtime_env=env(SIZE="2", SHAPE="round")).remote())

    found = ray.get(outer.options(runtime_env=env(COLOUR="red", SIZE="1")).remote())
    assert found == ["red", "2", "round"]


def test_an_empty_environment_of_a_child_is_its_parents() -> None:
    """``runtime_env={}`` takes nothing away."""

    @ray.remote
    def outer():
        return ray.get(value.options(runtime_env={}).remote())

    assert ray.get(outer.options(runtime_env=colour("red")).remote()) == "red"


def test_an_actors_tasks_inherit_its_environment() -> None:
    """As those of a task do."""
    actor = Actor.options(runtime_env=colour("red")).remote()
    assert ray.get(actor.value_below.remote()) == "red"


def test_actors_of_a_task_inherit_its_environment() -> None:
    """The same for actors."""

    @ray.remote
    def outer():
        return ray.get(Actor.remote().value.remote())

    assert ray.get(outer.options(runtime_env=colour("red")).remote()) == "red"


# ---- what may be said, and asked -------------------------------------------------------------


@pytest.mark.parametrize("wanted", [{"COLOUR": 1}, {1: "red"}, ["COLOUR"], "COLOUR=red"])
def test_variables_that_cannot_be(wanted) -> None:
    """Names and values are strings in a dict; else it is a TypeError at once."""
    with pytest.raises(TypeError):
        value.options(runtime_env={"env_vars": wanted}).remote()


@pytest.mark.parametrize("wanted", [None, {}, {"env_vars": {}}])
def test_nothing_in_it(wanted) -> None:
    """That is as if it were not said."""
    assert ray.get(value.options(runtime_env=wanted).remote()) is None


def test_the_context_has_the_environment() -> None:
    """``runtime_env`` of a task's context, and the same as JSON."""

    @ray.remote
    def ask():
        found = ray.get_runtime_context()
        return dict(found.runtime_env), found.get_runtime_env_string()

    found, text = ray.get(ask.options(runtime_env=colour("red")).remote())
    assert found["env_vars"] == {"COLOUR": "red"}
    assert '"COLOUR"' in text


def test_an_environment_as_an_object() -> None:
    """``ray.runtime_env.RuntimeEnv`` is a dict that is checked when it is made."""
    made = ray.runtime_env.RuntimeEnv(env_vars={"COLOUR": "red"})

    assert isinstance(made, dict)
    assert made["env_vars"] == {"COLOUR": "red"}
    assert made.env_vars() == {"COLOUR": "red"}
    assert ray.get(value.options(runtime_env=made).remote()) == "red"
    with pytest.raises(TypeError):
        ray.runtime_env.RuntimeEnv(env_vars={"COLOUR": 1})


# ---- of the job ------------------------------------------------------------------------------

JOB = """
    ray.init(num_cpus=2, runtime_env={"env_vars": {"COLOUR": "red", "SIZE": "1"}})

    def found():
        return os.environ.get("COLOUR"), os.environ.get("SIZE")

    f = ray.remote(found)
"""


def test_a_jobs_environment_is_that_of_all_its_tasks(program) -> None:
    """``init(runtime_env=)``: a task's is added to it; the driver itself has none of it."""
    lines = program(
        JOB
        + """
    print(found())
    print(ray.get(f.remote()))
    print(ray.get(f.options(runtime_env={"env_vars": {"SIZE": "2"}}).remote()))
    print(ray.get_runtime_context().runtime_env["env_vars"])
"""
    ).stdout.splitlines()
    assert lines == [
        "(None, None)",
        "('red', '1')",
        "('red', '2')",
        "{'COLOUR': 'red', 'SIZE': '1'}",
    ]


def test_a_jobs_environment_is_that_of_its_actors_and_of_tasks_below(program) -> None:
    """They inherit it as well."""
    lines = program(
        JOB
        + """
    @ray.remote
    class A:
        def f(self):
            return found()

    @ray.remote
    def outer():
        return ray.get(f.remote())

    print(ray.get([A.remote().f.remote(), outer.remote()]))
"""
    ).stdout.splitlines()
    assert lines == ["[('red', '1'), ('red', '1')]"]


@pytest.mark.parametrize("wanted", ["1", "{'env_vars': 1}", "{'env_vars': {'A': 1}}"])
def test_a_jobs_environment_that_cannot_be(program, wanted) -> None:
    """It is an error of ``init``."""
    done = program(f"ray.init(num_cpus=1, runtime_env={wanted})", code=1)
    assert "Error" in done.stderr
