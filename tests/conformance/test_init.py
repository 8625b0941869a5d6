"""Contracts of ``init`` and ``shutdown``, and of programs as a whole."""

from __future__ import annotations

import pytest
import ray

pytestmark = pytest.mark.usefixtures("disconnected")


def test_the_context_is_a_mapping_and_a_context_manager() -> None:
    """``init`` gives facts; leaving it shuts down."""
    with ray.init(num_cpus=1, include_dashboard=False) as context:
        assert ray.is_initialized()
        assert context.address_info["node_id"]
        assert context["gcs_address"] == context.address_info["gcs_address"]
        assert "address" in context.address_info
        assert context.python_version.count(".") == 2
        assert context.ray_version == ray.__version__
        assert isinstance(context.dashboard_url, str | type(None))
    assert not ray.is_initialized()


def test_a_second_init_is_refused(program) -> None:
    """It is a RuntimeError, unless ``ignore_reinit_error`` is given."""
    said = program(
        """
        ray.init(num_cpus=1, include_dashboard=False)
        try:
            ray.init()
        except RuntimeError as error:
            print("twice by accident" in str(error))
        print(ray.init(ignore_reinit_error=True).address_info["address"] != "")
        """
    )

    assert said.stdout.splitlines() == ["True", "True"]


def test_shutdown_may_come_twice(program) -> None:
    """It does nothing where there is nothing, and ``init`` works after it."""
    said = program(
        """
        ray.shutdown()
        for _ in range(2):
            ray.init(num_cpus=1, include_dashboard=False)
            print(ray.get(ray.put(1)))
            ray.shutdown()
            ray.shutdown()
        print(ray.is_initialized())
        """
    )

    assert said.stdout.splitlines() == ["1", "1", "False"]


@pytest.mark.parametrize(
    "first",
    ["ray.put(1)", "f.remote()", "A.remote()", "ray.wait([])", "ray.get_runtime_context()"],
)
def test_the_first_call_initializes(program, first) -> None:
    """Without ``init``, what needs a cluster starts one."""
    said = program(
        f"""
        @ray.remote
        def f():
            return 1

        @ray.remote
        class A:
            pass

        assert not ray.is_initialized()
        {first}
        print(ray.is_initialized())
        """
    )

    assert said.stdout.splitlines()[-1] == "True"


def test_questions_about_the_cluster_do_not_initialize() -> None:
    """``nodes()`` and ``cluster_resources()`` before ``init`` are errors."""
    for question in (ray.nodes, ray.cluster_resources, ray.available_resources):
        with pytest.raises(Exception, match=r"ray|Ray"):
            question()
    assert not ray.is_initialized()


def test_resources_that_init_was_told(program) -> None:
    """``num_cpus``, ``num_gpus`` and ``resources`` are those of the node."""
    said = program(
        """
        ray.init(num_cpus=3, num_gpus=2, resources={"custom": 4}, include_dashboard=False)
        found = ray.cluster_resources()
        print(found["CPU"], found["GPU"], found["custom"])

        @ray.remote(num_cpus=0, num_gpus=1, resources={"custom": 1})
        def f():
            ids = ray.get_runtime_context().get_accelerator_ids()["GPU"]
            return len(ray.get_gpu_ids()), len(ids), os.environ["CUDA_VISIBLE_DEVICES"] == ids[0]

        print(ray.get(f.remote()))
        print(ray.get(f.options(num_gpus=0.5).remote())[0])
        """
    )

    assert said.stdout.splitlines() == ["3.0 2.0 4.0", "(1, 1, True)", "1"]


def test_an_accelerator_type_that_a_node_has(program) -> None:
    """``accelerator_type`` is the resource of that name."""
    said = program(
        """
        ray.init(num_cpus=1, resources={"accelerator_type:X1": 1}, include_dashboard=False)

        @ray.remote(accelerator_type="X1")
        def f():
            return "ran"

        print(ray.get(f.remote()))
        """
    )

    assert said.stdout.splitlines() == ["ran"]


@pytest.mark.parametrize(
    "arguments",
    [
        "object_store_memory=200_000_000",
        "namespace='x'",
        "include_dashboard=False, dashboard_host='127.0.0.1', dashboard_port=9999",
        "configure_logging=False",
        "logging_level=30",
        "log_to_driver=False",
        "runtime_env={}",
        "labels={'a': 'b'}",
        "_system_config={}",
        "address='local'",
        "_memory=500_000_000",
        "_temp_dir=None",
        "job_config=None",
    ],
)
def test_arguments_of_init_that_programs_pass(arguments) -> None:
    """They are taken, and tasks run."""
    with eval(f"ray.init(num_cpus=1, **dict({arguments}))"):
        assert ray.get(ray.put(1)) == 1


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"nonsense": 1}, Exception),
        ({"num_cpus": "many"}, Exception),
        ({"num_cpus": -1}, Exception),
        ({"resources": {"CPU": 1}}, Exception),
        ({"resources": [1]}, Exception),
        ({"namespace": 1}, Exception),
        ({"namespace": ""}, ValueError),
    ],
)
def test_arguments_of_init_that_are_refused(arguments, kind) -> None:
    """Unknown ones, and bad values."""
    with pytest.raises(kind):
        ray.init(**arguments)
    assert not ray.is_initialized()


def test_labels_of_the_node() -> None:
    """``labels`` are those of the started node."""
    with ray.init(num_cpus=1, labels={"zone": "a"}, include_dashboard=False):
        assert ray.nodes()[0]["Labels"]["zone"] == "a"


def test_the_namespace_of_a_job(program) -> None:
    """The context says it, in the driver and in tasks."""
    said = program(
        """
        ray.init(num_cpus=1, namespace="mine", include_dashboard=False)

        @ray.remote
        def f():
            return ray.get_runtime_context().namespace

        print(ray.get_runtime_context().namespace, ray.get(f.remote()))
        """
    )

    assert said.stdout.splitlines() == ["mine mine"]


def test_named_actors_are_shared_in_a_namespace(program) -> None:
    """``get_actor`` finds an actor of the same namespace by its name, or with ``namespace=``."""
    said = program(
        """
        @ray.remote
        class Counter:
            def add(self):
                return 1

        ray.init(num_cpus=2, namespace="shared", include_dashboard=False)
        here = Counter.options(name="here").remote()
        there = Counter.options(name="there", namespace="other").remote()
        print(ray.get(ray.get_actor("here").add.remote()))
        print(ray.get(ray.get_actor("there", namespace="other").add.remote()))
        try:
            ray.get_actor("there")
        except ValueError:
            print("not here")
        from ray.util import list_named_actors
        print(list_named_actors(), len(list_named_actors(all_namespaces=True)))
        """
    )
    assert said.stdout.splitlines() == ["1", "1", "not here", "['here'] 2"]


def test_another_program_joins_by_the_environment(program) -> None:
    """RAY_ADDRESS names the cluster that ``init`` connects to."""

    @ray.remote
    class Named:
        def go(self):
            return "answered"

    context = ray.init(num_cpus=2, namespace="shared", include_dashboard=False)
    named = Named.options(name="named").remote()
    assert ray.get(named.go.remote()) == "answered"

    said = program(
        """
        ray.init(namespace="shared")
        print(ray.get(ray.get_actor("named").go.remote()))
        """,
        RAY_ADDRESS=context.address_info["gcs_address"],
    )
    assert said.stdout.splitlines() == ["answered"]


def test_resources_of_a_cluster_that_is_joined(program) -> None:
    """``num_cpus`` and the like together with the address of a cluster are a ValueError."""
    context = ray.init(num_cpus=1, include_dashboard=False)

    said = program(
        """
        try:
            ray.init(address=sys.argv[1], num_cpus=1)
        except ValueError as error:
            print("When connecting to an existing cluster" in str(error))
        """,
        context.address_info["gcs_address"],
    )
    assert said.stdout.splitlines() == ["True"]


def test_prints_of_tasks_come_to_the_driver(program) -> None:
    """What a task prints is in the driver's output, with the function and pid in front."""
    said = program(
        """
        ray.init(num_cpus=1, include_dashboard=False)

        @ray.remote
        def speaker():
            print("said in a task")
            return 1

        ray.get(speaker.remote())
        time.sleep(3)
        """
    )
    both = said.stdout + said.stderr

    (line,) = [line for line in both.splitlines() if "said in a task" in line]
    assert "speaker" in line
    assert "pid=" in line


@pytest.mark.parametrize(
    ("argument", "variable"),
    [("log_to_driver=False", "1"), ("", "0")],
    ids=["argument", "variable"],
)
def test_prints_stay_away_on_demand(program, argument, variable) -> None:
    """``log_to_driver=False``, or RAY_LOG_TO_DRIVER=0, keeps them from the driver."""
    said = program(
        f"""
        ray.init(num_cpus=1, include_dashboard=False, {argument})

        @ray.remote
        def speaker():
            print("said in a task")

        ray.get(speaker.remote())
        time.sleep(2)
        """,
        RAY_LOG_TO_DRIVER=variable,
    )

    assert "said in a task" not in said.stdout + said.stderr


def test_a_program_that_fails_ends_with_its_error(program) -> None:
    """An uncaught error of a task is an exit code of 1, and its traceback on stderr."""
    said = program(
        """
        ray.init(num_cpus=1, include_dashboard=False)

        @ray.remote
        def failing_function():
            raise ValueError("the message")

        ray.get(failing_function.remote())
        """,
        code=1,
    )

    assert "ValueError: the message" in said.stderr
    assert "failing_function" in said.stderr


def test_functions_and_classes_of_the_program_itself(program) -> None:
    """What ``__main__`` defines goes to tasks and comes back as its own class."""
    said = program(
        """
        import dataclasses, enum

        class Plain:
            def __init__(self, x):
                self.x = x
            def __eq__(self, other):
                return type(other) is Plain and other.x == self.x

        @dataclasses.dataclass
        class Data:
            x: int

        class Color(enum.Enum):
            RED = 1

        FACTOR = 10

        def helper(x):
            return x * FACTOR

        @ray.remote
        def f(values):
            assert isinstance(values[0], Plain) and values[1].x == 2
            return [*values, helper(4), Color.RED]

        ray.init(num_cpus=1, include_dashboard=False)
        found = ray.get(f.remote([Plain(1), Data(2)]))
        print(found[0] == Plain(1), found[1] == Data(2), found[2], found[3] is Color.RED)
        """
    )

    assert said.stdout.splitlines() == ["True True 40 True"]


def test_an_atexit_handler_may_use_the_cluster(program) -> None:
    """A handler that the program registers after ``init`` still gets values."""
    said = program(
        """
        import atexit
        ray.init(num_cpus=1, include_dashboard=False)
        ref = ray.put(5)
        atexit.register(lambda: print(ray.get(ref)))
        """
    )

    assert said.stdout.splitlines() == ["5"]
