"""Contracts of the runtime context, and of what is said of the cluster."""

from __future__ import annotations

import os
import re
import time

import pytest
import ray

pytestmark = pytest.mark.usefixtures("cluster")

HEX = re.compile(r"[0-9a-f]+")


@ray.remote
def context(names):
    found = ray.get_runtime_context()
    return {name: getattr(found, name)() for name in names}


@ray.remote
class Actor:
    def context(self, names):
        found = ray.get_runtime_context()
        return {name: getattr(found, name)() for name in names}

    def handle(self):
        return ray.get_runtime_context().current_actor

    def attribute(self, name):
        return getattr(ray.get_runtime_context(), name)


def test_ids_are_hexadecimal_text() -> None:
    """Job, node and worker of a driver are text."""
    found = ray.get_runtime_context()

    for text in (found.get_job_id(), found.get_node_id(), found.get_worker_id()):
        assert HEX.fullmatch(text)


def test_a_driver_runs_no_task() -> None:
    """Its task's and actor's ids and names are None."""
    found = ray.get_runtime_context()

    assert found.get_actor_id() is None
    assert found.get_actor_name() is None


def test_a_task_knows_itself() -> None:
    """Its id is that of its reference, its name that of the function."""
    ref = context.remote(["get_task_id", "get_task_name", "get_actor_id"])

    found = ray.get(ref)
    assert found["get_task_id"] == ref.task_id().hex()
    assert found["get_task_name"].endswith("context")
    assert found["get_actor_id"] is None


def test_a_tasks_name_is_an_option() -> None:
    """``options(name=)`` is what the task says."""
    ref = context.options(name="some name").remote(["get_task_name"])

    assert ray.get(ref) == {"get_task_name": "some name"}


def test_job_and_node_are_those_of_the_driver() -> None:
    """A task on the only node has the same job and node, and another worker id."""
    names = ["get_job_id", "get_node_id", "get_worker_id"]
    found, own = ray.get(context.remote(names)), ray.get_runtime_context()

    assert found["get_job_id"] == own.get_job_id()
    assert found["get_node_id"] == own.get_node_id()
    assert found["get_worker_id"] != own.get_worker_id()


def test_an_actor_knows_itself() -> None:
    """It has an id, which stays, and a task id for each call."""
    actor = Actor.remote()
    names = ["get_actor_id", "get_task_id", "get_actor_name"]
    first, second = ray.get([actor.context.remote(names), actor.context.remote(names)])

    assert first["get_actor_id"] == second["get_actor_id"]
    assert first["get_task_id"] != second["get_task_id"]
    assert not first["get_actor_name"]


def test_an_actors_name() -> None:
    """A named actor knows its name."""
    actor = Actor.options(name="known").remote()

    assert ray.get(actor.context.remote(["get_actor_name"])) == {"get_actor_name": "known"}


def test_the_name_of_a_call() -> None:
    """It is the class and the method."""
    name = ray.get(Actor.remote().context.remote(["get_task_name"]))["get_task_name"]

    assert name.endswith("Actor.context")


def test_the_current_actor_is_a_handle() -> None:
    """An actor can give a handle of itself."""
    actor = Actor.remote()
    same = ray.get(actor.handle.remote())

    assert ray.get(same.context.remote(["get_actor_id"])) == ray.get(
        actor.context.remote(["get_actor_id"])
    )


def test_a_driver_is_no_actor() -> None:
    """``current_actor`` outside of an actor is a RuntimeError."""
    with pytest.raises(RuntimeError):
        ray.get_runtime_context().current_actor  # noqa: B018


def test_an_actor_that_was_not_restarted() -> None:
    """``was_current_actor_reconstructed`` is False in a new actor."""
    assert ray.get(Actor.remote().attribute.remote("was_current_actor_reconstructed")) is False


def test_an_actor_that_was_restarted() -> None:
    """It is True in one that was restarted."""

    @ray.remote(max_restarts=1, max_task_retries=-1)
    class Restarted:
        def crash(self):
            if not ray.get_runtime_context().was_current_actor_reconstructed:
                os._exit(1)
            return True

    assert ray.get(Restarted.remote().crash.remote(), timeout=50) is True


def test_assigned_resources_of_a_task() -> None:
    """What it has taken, by name."""
    ref = context.options(num_cpus=2).remote(["get_assigned_resources"])

    assert ray.get(ref)["get_assigned_resources"] == {"CPU": 2.0}


def test_assigned_resources_of_an_actor() -> None:
    """What it keeps."""
    actor = Actor.options(num_cpus=1).remote()

    assert ray.get(actor.context.remote(["get_assigned_resources"])) == {
        "get_assigned_resources": {"CPU": 1.0}
    }


def test_no_accelerators() -> None:
    """Without GPUs there are none for a task."""
    assert ray.get(context.remote(["get_accelerator_ids"]))["get_accelerator_ids"]["GPU"] == []


def test_the_namespace_is_text() -> None:
    """A driver without a namespace has one of its own, and its tasks the same."""
    actor = Actor.remote()

    assert ray.get_runtime_context().namespace
    assert ray.get(actor.attribute.remote("namespace")) == ray.get_runtime_context().namespace


def test_the_address_of_the_head() -> None:
    """``gcs_address`` is host:port."""
    assert re.fullmatch(r".+:\d+", ray.get_runtime_context().gcs_address)


def test_get_gives_what_is_known() -> None:
    """``get()`` is a mapping that has the node's and job's ids."""
    found = ray.get_runtime_context().get()

    assert {"job_id", "node_id"} <= {*found}


def test_node_labels_are_text() -> None:
    """``get_node_labels()`` is a dict of strings."""
    found = ray.get(context.remote(["get_node_labels"]))["get_node_labels"]

    assert all(isinstance(text, str) for pair in found.items() for text in pair)


def test_a_task_is_not_cancelled() -> None:
    """``is_canceled()`` is False in a running task."""
    assert ray.get(context.remote(["is_canceled"])) == {"is_canceled": False}


def test_a_driver_cannot_be_cancelled() -> None:
    """``is_canceled()`` in a driver is an error."""
    with pytest.raises(RuntimeError):
        ray.get_runtime_context().is_canceled()


def test_no_gpus_at_the_driver() -> None:
    """``get_gpu_ids()`` is an empty list."""
    assert ray.get_gpu_ids() == []


# ---- the cluster ---------------------------------------------------------------------------


def test_nodes() -> None:
    """One node, alive, with what ``init`` was told."""
    (node,) = ray.nodes()

    assert node["Alive"] is True
    assert node["Resources"]["CPU"] == 4.0
    assert node["NodeID"] == ray.get_runtime_context().get_node_id()
    assert {"NodeManagerAddress", "NodeManagerHostname", "NodeName", "Labels"} <= {*node}


def test_resources_of_the_cluster() -> None:
    """CPUs and memory of all nodes."""
    found = ray.cluster_resources()

    assert found["CPU"] == 4.0
    assert found["memory"] > 0


def test_available_resources_follow_what_runs() -> None:
    """What a task has taken is not available meanwhile."""

    @ray.remote(num_cpus=3)
    def hold():
        time.sleep(1.5)

    ref = hold.remote()
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ray.get(ref)
    while ray.available_resources().get("CPU", 0) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_is_initialized() -> None:
    """``is_initialized()`` is True in a driver and in its tasks."""

    @ray.remote
    def f():
        return ray.is_initialized()

    assert ray.is_initialized()
    assert ray.get(f.remote())


@pytest.mark.filterwarnings("ignore")
def test_ids_as_objects() -> None:
    """``job_id``, ``node_id``, ``task_id`` and ``actor_id`` are the same ids as objects."""

    @ray.remote
    class Asking:
        def ask(self):
            found = ray.get_runtime_context()
            return found.job_id, found.node_id, found.task_id, found.actor_id

    job_id, node_id, task_id, actor_id = ray.get(Asking.remote().ask.remote())
    own = ray.get_runtime_context()

    assert isinstance(job_id, ray.JobID)
    assert (job_id, node_id) == (own.job_id, own.node_id)
    assert job_id.hex() == own.get_job_id()
    assert isinstance(task_id, ray.TaskID)
    assert isinstance(actor_id, ray.ActorID)


def test_the_name_of_the_function_itself() -> None:
    """``get_task_function_name()`` is the function's, whatever the task is called."""
    ref = context.options(name="some name").remote(["get_task_function_name", "get_task_name"])

    found = ray.get(ref)
    assert found["get_task_function_name"].endswith("context")
    assert found["get_task_name"] == "some name"


def test_no_runtime_environment() -> None:
    """``get_runtime_env_string()`` of a job without one is an empty JSON object."""
    assert ray.get_runtime_context().get_runtime_env_string() == "{}"


@pytest.mark.filterwarnings("ignore")
def test_everything_at_once() -> None:
    """``get()`` has job, node and namespace; in tasks the task, in actors the actor as well."""

    @ray.remote
    def ask():
        return {name: str(value) for name, value in ray.get_runtime_context().get().items()}

    @ray.remote
    class Asking:
        def ask(self):
            return set(ray.get_runtime_context().get())

    own = ray.get_runtime_context()
    assert own.get() == {
        "job_id": own.job_id,
        "node_id": own.node_id,
        "namespace": own.namespace,
    }
    assert set(ray.get(ask.remote())) == {"job_id", "node_id", "namespace", "task_id"}
    wanted = {"job_id", "node_id", "namespace", "task_id", "actor_id"}
    assert ray.get(Asking.remote().ask.remote()) == wanted


def test_the_name_of_the_session() -> None:
    """``get_session_name()`` is a text, the same in a driver and its tasks."""

    @ray.remote
    def ask():
        return ray.get_runtime_context().get_session_name()

    name = ray.get_runtime_context().get_session_name()
    assert name.startswith("session_")
    assert ray.get(ask.remote()) == name


def test_the_folder_for_temporary_files() -> None:
    """``get_temp_dir()`` is a path."""
    assert ray.get_runtime_context().get_temp_dir().startswith("/")


@pytest.mark.filterwarnings("ignore")
def test_no_placement_group() -> None:
    """A driver, and a task of none, have no placement group."""

    @ray.remote
    def ask():
        found = ray.get_runtime_context()
        return found.get_placement_group_id(), found.current_placement_group_id.is_nil()

    assert ray.get(ask.remote()) == (None, True)
    own = ray.get_runtime_context()
    assert own.get_placement_group_id() is None
    assert not own.should_capture_child_tasks_in_placement_group


# ---- resources -----------------------------------------------------------------------------


def test_resources_that_every_cluster_has() -> None:
    """Memory, the object store's, one of ``node:ADDRESS`` for each node and one for the head's."""
    found = ray.cluster_resources()
    (node,) = ray.nodes()

    assert found["memory"] > 0
    assert found["object_store_memory"] > 0
    assert found[f"node:{node['NodeManagerAddress']}"] == 1.0
    assert found["node:__internal_head__"] == 1.0
    assert all(isinstance(amount, float) for amount in found.values())


def test_resources_of_a_node() -> None:
    """``nodes()`` has the same for each node."""
    (node,) = ray.nodes()
    assert node["Resources"] == ray.cluster_resources()


def test_available_resources_of_an_idle_cluster() -> None:
    """They are all that there are."""
    deadline = time.monotonic() + 20
    while ray.available_resources().keys() != ray.cluster_resources().keys():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_task_asks_for_a_node_by_its_resource() -> None:
    """A little of ``node:ADDRESS`` is how a task gets to a certain node."""

    @ray.remote
    def where():
        return ray.get_runtime_context().get_node_id()

    (node,) = ray.nodes()
    names = [f"node:{node['NodeManagerAddress']}", "node:__internal_head__"]
    for name in names:
        assert ray.get(where.options(resources={name: 0.01}).remote()) == node["NodeID"]
    ref = where.options(resources={"node:10.255.255.1": 0.01}).remote()
    assert ray.wait([ref], timeout=1) == ([], [ref])
    ray.cancel(ref)


def test_assigned_resources() -> None:
    """``get_assigned_resources()`` has what the task has taken, and nothing else."""

    @ray.remote
    def ask():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(ask.remote()) == {"CPU": 1.0}
    environment = {"env_vars": {"COLOUR": "red"}}
    assert ray.get(ask.options(num_cpus=2, runtime_env=environment).remote()) == {"CPU": 2.0}
    assert ray.get(ask.options(num_cpus=0).remote()) == {}
