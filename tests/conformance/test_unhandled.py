"""Contracts of errors that nobody asks for, and of references that a program pickles itself."""

from __future__ import annotations

import pytest
import ray

TAIL = """
stderr = open(os.path.join(os.path.dirname(__file__), "stderr"), "w+")
os.dup2(stderr.fileno(), 2)

def said(count=1):
    deadline = time.monotonic() + 30
    while open(stderr.name).read().count("Unhandled error") < count:
        assert time.monotonic() < deadline, open(stderr.name).read()
        time.sleep(0.05)

def printed():
    time.sleep(1.0)  # for what should not be said
    print(open(stderr.name).read())
    print("END", flush=True)
"""
FAIL = """
@ray.remote(max_retries=0)
def fail(text="it has failed", seconds=0.0):
    time.sleep(seconds)
    raise ValueError(text)

@ray.remote
class Actor:
    def fail(self, text="it has failed"):
        raise ValueError(text)

ray.init(num_cpus=2, include_dashboard=False)
"""
SAID = "Unhandled error"


def run(program, text, **env):
    done = program(TAIL + FAIL + text + "\nprinted()\n", **env)
    assert "END" in done.stdout
    return done.stdout


def test_a_task_that_fails_when_its_reference_is_gone(program) -> None:
    """The driver says so once, with the error's text, and how not to hear of it."""
    text = run(program, "fail.remote('nobody asked', 0.2)\nsaid()")

    assert text.count(SAID) == 1
    assert "nobody asked" in text
    assert "RAY_IGNORE_UNHANDLED_ERRORS=1" in text


def test_tasks_and_calls_whose_references_are_dropped(program) -> None:
    """It is said of each of them."""
    text = run(
        program,
        """
actor = Actor.remote()
refs = [fail.remote("one"), fail.remote("two"), actor.fail.remote("of the actor")]
del refs
said(3)
""",
    )

    assert text.count(SAID) == 3
    assert all(one in text for one in ("one", "two", "of the actor"))


def test_a_reference_that_is_dropped_after_its_task_has_failed(program) -> None:
    """The same when the error was there before."""
    text = run(
        program,
        """
ref = fail.remote("long ago")
ray.get([Actor.remote().__ray_ready__.remote() for _ in range(3)])
time.sleep(1.0)
del ref
said()
""",
    )

    assert text.count(SAID) == 1
    assert "long ago" in text


def test_an_error_that_was_raised_is_not_said_again(program) -> None:
    """Whoever got it has handled it."""
    text = run(
        program,
        """
ref = fail.remote()
try:
    ray.get(ref)
except ValueError:
    pass
del ref
""",
    )

    assert SAID not in text


def test_an_error_that_was_awaited_is_not_said(program) -> None:
    """By ``await`` or by a future."""
    text = run(
        program,
        """
import asyncio

async def main():
    try:
        await fail.remote()
    except ValueError:
        pass

asyncio.run(main())
fail.remote().future().exception(timeout=30)
""",
    )

    assert SAID not in text


def test_an_error_that_was_waited_for_is_not_said(program) -> None:
    """``wait`` has told that it is ready, whether it fetched the value or not."""
    text = run(
        program,
        """
refs = [fail.remote("first"), fail.remote("second")]
ray.wait(refs[:1], timeout=30)
ray.wait(refs[1:], timeout=30, fetch_local=False)
del refs
""",
    )

    assert SAID not in text


def test_an_error_for_which_wait_did_not_wait_long_enough_is_said(program) -> None:
    """So is one that was not among the first that were wanted."""
    text = run(
        program,
        """
refs = [fail.remote("late", 1.0), Actor.remote().__ray_ready__.remote()]
ray.wait(refs, timeout=30)
del refs
said()
""",
    )

    assert text.count(SAID) == 1
    assert "late" in text


PASS = """
@ray.remote(max_retries=0)
def use(value):
    raise AssertionError("it does not run")

@ray.remote
def get(refs):
    try:
        ray.get(refs[0])
    except ValueError:
        return "handled"

@ray.remote
class User:
    def use(self, value):
        raise AssertionError("it does not run")
"""


def test_an_argument_counts_as_asked_for(program) -> None:
    """The task or call that gets it fails with the same error, which is asked for there."""
    text = run(
        program,
        PASS
        + """
user = User.remote()
for seconds in (0.0, 0.5):
    for call in (use, user.use):
        ref = fail.remote("of the argument", seconds)
        used = call.remote(ref)
        del ref
        try:
            ray.get(used)
        except ValueError:
            print("raised")
        del used
""",
    )

    assert text.count("raised") == 4
    assert SAID not in text


def test_an_argument_of_what_nobody_asks_for(program) -> None:
    """It is said of the task at the end alone."""
    text = run(
        program,
        PASS
        + """
first = fail.remote("of the argument")
ray.wait([use.remote(ref) for ref in [first]], timeout=30)
second = use.remote(use.remote(first))
del first, second
said()
""",
    )

    assert text.count(SAID) == 1


def test_an_argument_whose_error_was_there_before(program) -> None:
    """It is the same if the task has failed by then."""
    text = run(
        program,
        PASS
        + """
ref = fail.remote()
ray.get([Actor.remote().__ray_ready__.remote() for _ in range(3)])
time.sleep(1.0)
used = use.remote(ref)
del ref
try:
    ray.get(used)
except ValueError:
    print("raised")
""",
    )

    assert "raised" in text
    assert SAID not in text


def test_a_reference_in_an_argument_that_is_asked_for_there(program) -> None:
    """Whoever gets it has handled it; the driver says nothing."""
    text = run(
        program,
        PASS
        + """
ref = fail.remote()
print(ray.get(get.remote([ref])))
print(ray.get(get.remote(ray.put([ref]))))
del ref
""",
    )

    assert text.count("handled") == 2
    assert SAID not in text


def test_nothing_is_said_of_what_succeeds(program) -> None:
    """A value that nobody asks for is nothing to speak of."""
    text = run(
        program,
        """
@ray.remote
def f():
    return 1

ref = f.remote()
del ref
""",
    )

    assert SAID not in text


def test_a_cancelled_task_is_not_said(program) -> None:
    """Whoever cancels does not want to hear of it."""
    text = run(
        program,
        """
@ray.remote
def f():
    time.sleep(60)

ref = f.remote()
ray.cancel(ref)
del ref
""",
    )

    assert SAID not in text


def test_a_dead_actor_is_not_said(program) -> None:
    """Calls of an actor that was killed are silent when their references are dropped."""
    text = run(
        program,
        """
actor = Actor.remote()
ray.kill(actor)
ref = actor.fail.remote()
del ref
""",
    )

    assert SAID not in text


def test_the_switch(program) -> None:
    """``RAY_IGNORE_UNHANDLED_ERRORS`` makes it silent."""
    text = run(
        program,
        """
ref = fail.remote()
del ref
""",
        RAY_IGNORE_UNHANDLED_ERRORS="1",
    )

    assert SAID not in text


# ---- out of band ---------------------------------------------------------------------------


def test_pickled_out_of_band(program) -> None:
    """A reference pickled by hand is good for the life of the program."""
    done = program(
        """
        ray.init(num_cpus=1, include_dashboard=False)
        data = ray.cloudpickle.dumps(ray.put("value"))
        time.sleep(0.5)
        print(ray.get(ray.cloudpickle.loads(data)))
        """
    )

    assert done.stdout.split()[-1] == "value"


def test_pickled_out_of_band_is_refused(program) -> None:
    """With RAY_allow_out_of_band_object_ref_serialization=0 it raises, and says how to allow it."""
    done = program(
        """
        from ray.exceptions import OufOfBandObjectRefSerializationException

        ray.init(num_cpus=1, include_dashboard=False)
        ref = ray.put("value")
        try:
            ray.cloudpickle.dumps(ref)
        except OufOfBandObjectRefSerializationException as error:
            print(ref.hex() in str(error))
            print("RAY_allow_out_of_band_object_ref_serialization" in str(error))
        """,
        RAY_allow_out_of_band_object_ref_serialization="0",
    )

    assert done.stdout.split()[-2:] == ["True", "True"]


def test_what_is_not_out_of_band(program) -> None:
    """With it refused, arguments, results, puts and closures of actors go on as ever."""
    done = program(
        """
        ray.init(num_cpus=2, include_dashboard=False)
        ref = ray.put("value")

        @ray.remote
        def f(refs):
            return [ray.get(refs[0]), ray.put("inner")]

        value, inner = ray.get(f.remote([ref]))
        print(value, ray.get(inner), ray.get(ray.get(ray.put([ref]))[0]))
        """,
        RAY_allow_out_of_band_object_ref_serialization="0",
    )

    assert done.stdout.split()[-3:] == ["value", "inner", "value"]


def test_a_captured_reference_is_refused_as_well(program) -> None:
    """In the closure or the globals of a task or class; not in a function that is an argument."""
    done = program(
        """
        from ray.exceptions import OufOfBandObjectRefSerializationException

        ray.init(num_cpus=2, include_dashboard=False)
        ref = ray.put("value")

        @ray.remote
        def f():
            return ray.get(ref)

        @ray.remote
        class Actor:
            def go(self):
                return ray.get(ref)

        @ray.remote
        def call(function):
            return function()

        for make in (f, Actor):
            try:
                make.remote()
            except OufOfBandObjectRefSerializationException:
                print("refused")
        print(ray.get(call.remote(lambda: ray.get(ref))))
        """,
        RAY_allow_out_of_band_object_ref_serialization="0",
    )

    assert done.stdout.split()[-3:] == ["refused", "refused", "value"]


def test_a_captured_handle_is_not_refused(program) -> None:
    """The switch is for references alone."""
    done = program(
        """
        @ray.remote
        class Actor:
            def go(self):
                return "gone"

        ray.init(num_cpus=2, include_dashboard=False)
        actor = Actor.remote()

        @ray.remote
        def f():
            return ray.get(actor.go.remote())

        print(ray.get(f.remote()))
        """,
        RAY_allow_out_of_band_object_ref_serialization="0",
    )

    assert done.stdout.split()[-1] == "gone"


def test_a_handle_is_never_refused(program) -> None:
    """The switch is for references alone."""
    done = program(
        """
        @ray.remote
        class Actor:
            def go(self):
                return "gone"

        ray.init(num_cpus=1, include_dashboard=False)
        actor = Actor.remote()
        print(ray.get(ray.cloudpickle.loads(ray.cloudpickle.dumps(actor)).go.remote()))
        """,
        RAY_allow_out_of_band_object_ref_serialization="0",
    )

    assert done.stdout.split()[-1] == "gone"


def test_a_reference_of_no_cluster() -> None:
    """The exception of refused pickles is a RayError."""
    kind = ray.exceptions.OufOfBandObjectRefSerializationException

    assert issubclass(kind, ray.exceptions.RayError)
    with pytest.raises(kind):
        raise kind("text")
