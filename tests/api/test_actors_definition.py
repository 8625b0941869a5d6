"""Actor classes, handles and methods before any cluster: checks, options, pickling.

A recorder takes the place of the connection and keeps what the API hands down.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

import cloudpickle
import pytest

import zray
from zray import limits
from zray.api.actor_handles import Returns
from zray.exceptions import ActorClassInheritanceException
from zray.ids import object_id
from zray.protocol import messages as m
from zray.runtime import references, serialization, session
from zray.runtime.references import ObjectRef, counted


class Creation(NamedTuple):
    template: m.Template
    info: m.ActorInfo
    arguments: serialization.Arguments
    get_if_exists: bool


class Call(NamedTuple):
    method: str
    num_returns: int
    retries: int
    arguments: serialization.Arguments
    yields: tuple[int, ...]
    group: str = ""
    retry: bytes = m.RETRY_AS_DECLARED


class Recorder:
    """What a participant is to the API of actors."""

    namespace = "space"
    environment = None

    def __init__(self) -> None:
        self.exports: list[m.Export] = []
        self.created: list[Creation] = []
        self.calls: list[Call] = []
        self.killed: list[tuple[bytes, bool]] = []
        self.named: dict[tuple[str, str], tuple[ObjectRef[Any], m.ActorInfo]] = {}
        self.pinned: list[bytes] = []

    def running_task(self) -> bytes:
        return b""

    def export(self, export: m.Export, template: m.Template) -> None:
        self.exports.append(export)

    def create_actor(
        self,
        template: m.Template,
        info: m.ActorInfo,
        arguments: serialization.Arguments,
        get_if_exists: bool,
    ) -> tuple[ObjectRef[Any], m.ActorInfo]:
        self.created.append(Creation(template, info, arguments, get_if_exists))
        found = self.named.get((info.namespace, info.name)) if get_if_exists else None
        if found is None:
            found = self.borrow(object_id(bytes([len(self.created)]) * 16)), info
        return found

    def call_actor(
        self,
        ref: ObjectRef[Any],
        info: m.ActorInfo,
        method: str,
        returned: tuple[int, int, int],
        retries: int,
        arguments: serialization.Arguments,
        group: str,
        retry: bytes,
    ) -> list[ObjectRef[Any]]:
        self.calls.append(Call(method, returned[0], retries, arguments, returned[1:], group, retry))
        return [self.borrow(object_id(bytes(16), index)) for index in range(returned[0])]

    def find_actor(self, namespace: str, name: str) -> tuple[ObjectRef[Any], m.ActorInfo] | None:
        return self.named.get((namespace, name))

    def kill_actor(self, actor_id: bytes, no_restart: bool) -> None:
        self.killed.append((actor_id, no_restart))

    def list_actors(self, namespace: str, all_namespaces: bool) -> list[tuple[str, str]]:
        return [key for key in self.named if all_namespaces or key[0] == namespace]

    def borrow(self, found: bytes) -> ObjectRef[Any]:
        return counted(found)

    def pin(self, found: bytes) -> None:
        self.pinned.append(found)

    def handle_collected(self) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    assert not zray.is_initialized()
    found = Recorder()
    session.set_participant(found)
    references.connect(found)
    yield found
    references.connect(None)
    session.set_participant(None)


class Plain:
    LIMIT = 7

    def __init__(self, start: int, *, step: int = 1) -> None:
        self.n = start
        self.step = step

    def add(self, n: int, *, twice: bool = False) -> int:
        self.n += n * self.step * (2 if twice else 1)
        return self.n

    @zray.method(num_returns=2, max_task_retries=5)
    def pair(self) -> tuple[int, int]:
        return self.n, self.step

    @staticmethod
    def double(n: int) -> int:
        return 2 * n

    @classmethod
    def called(cls, suffix: str) -> str:
        return cls.__name__ + suffix

    def numbers(self) -> Iterator[int]:
        yield self.n

    def anything(self, *args: Any, **kwargs: Any) -> None: ...


class Async:
    async def wait(self) -> None: ...


Actor = zray.actor(Plain)
METHODS = [("add", 1), ("anything", 1), ("called", 1), ("double", 1), ("numbers", -1), ("pair", 2)]


# ---- classes -------------------------------------------------------------------------------


@pytest.mark.parametrize("decorate", [zray.actor, zray.remote])
def test_decorators(recorder: Recorder, decorate: Any) -> None:
    for cls in (decorate(Plain), decorate(max_restarts=3)(Plain), decorate()(Plain)):
        assert isinstance(cls, zray.ActorClass)
        handle = cls.remote(1, step=2)
        assert isinstance(handle, zray.ActorHandle)
        assert cls.__name__ == "Plain" and cls.LIMIT == 7 and repr(cls) == "ActorClass(Plain)"
    made = recorder.created[0]
    args, kwargs = serialization.loads_arguments(made.arguments.data, ())
    assert (args, kwargs) == ((1,), {"step": 2})
    assert made.info.class_name == "Plain" and made.template.name == "Plain.__init__"
    assert made.info.methods == METHODS and made.info.namespace == "space"
    assert (made.template.num_returns, made.template.max_retries) == (1, 0)
    assert [one.info.max_restarts for one in recorder.created] == [0, 3, 0]


def test_a_class_is_exported_once_for_each_cluster(recorder: Recorder) -> None:
    cls = zray.actor(Plain)
    for i in range(3):
        cls.remote(i)
        cls.options(name=f"number {i}").remote(i)
    assert len(recorder.exports) == 1
    found, _ = serialization.loads_function(recorder.exports[0].blob)
    assert found(2).add(1) == 3
    session.set_participant(other := Recorder())
    cls.remote(1)
    assert len(other.exports) == 1


def test_an_actor_class_under_actor_is_a_class_here_too() -> None:
    here = Actor(1, step=10)
    assert here.add(2) == 21 and here.pair() == (21, 10)
    checked: Any = Actor
    assert isinstance(here, checked) and not isinstance(3, checked)


def test_an_actor_class_under_remote_is_not() -> None:
    text = r"Actors cannot be instantiated directly. Instead of 'Plain\(\)', use 'Plain.remote\(\)'"
    with pytest.raises(TypeError, match=text):
        zray.remote(Plain)(1)


def test_inheriting_from_an_actor_class() -> None:
    text = "Inheriting from actor classes is not currently supported"
    with pytest.raises(ActorClassInheritanceException, match=text):

        class Derived(Actor):  # type: ignore[valid-type,misc]
            pass

    assert issubclass(ActorClassInheritanceException, TypeError)


def test_what_cannot_be_an_actor_class() -> None:
    with pytest.raises(TypeError, match="takes a class"):
        zray.actor(len)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a task is a function"):
        zray.task(Plain)
    with pytest.raises(TypeError, match="applied either with no arguments"):
        zray.actor(Plain, num_cpus=1)  # type: ignore[call-overload]


def test_an_actor_class_in_a_closure(recorder: Recorder) -> None:
    class Recursive:
        def make(self) -> zray.ActorHandle[Any]:
            return maker.remote()

    maker = zray.actor(max_restarts=2)(Recursive)
    again = pickle.loads(cloudpickle.dumps(maker))
    again.remote()
    assert recorder.created[0].info.max_restarts == 2
    assert again().make()._info.methods == [("make", 1)]


@pytest.mark.parametrize("args", [(), (1, 2), ("a", "b", "c")])
def test_constructor_arguments_are_checked(recorder: Recorder, args: Any) -> None:
    with pytest.raises(TypeError, match=r"Plain\.__init__\(\): "):
        Actor.remote(*args)
    with pytest.raises(TypeError, match="unexpected keyword argument 'stop'"):
        Actor.options(name="x").remote(1, stop=2)
    assert not recorder.created


# ---- options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_restart": 1}, ValueError, "for actors; did you mean 'max_restarts'"),
        ({"num_returns": 1}, ValueError, "Invalid option keyword 'num_returns' for actors"),
        ({"max_retries": 1}, ValueError, "Invalid option keyword 'max_retries' for actors"),
        ({"num_cpus": -1}, ValueError, "from 0"),
        ({"num_gpus": 1.5}, ValueError, "whole number"),
        ({"memory": "1"}, TypeError, "must be a number"),
        ({"resources": {"GPU": 1}}, ValueError, "Use the 'num_gpus' option"),
        ({"name": ""}, ValueError, "Actor name cannot be an empty string"),
        ({"name": 5}, TypeError, "name must be None or a string"),
        ({"name": "x" * 300}, ValueError, "256"),
        ({"namespace": ""}, ValueError, '"" is not a valid namespace'),
        ({"namespace": 5}, TypeError, "namespace must be None or a string"),
        ({"lifetime": "forever"}, ValueError, "must be one of 'detached', 'non_detached'"),
        ({"get_if_exists": 1}, TypeError, "must be a bool"),
        ({"max_restarts": -2}, ValueError, "only accepts None, 0, -1 or a positive integer"),
        ({"max_restarts": "1"}, TypeError, "whole number"),
        ({"max_restarts": True}, TypeError, "whole number"),
        ({"max_task_retries": -2}, ValueError, "where -1 represents infinity"),
        ({"max_pending_calls": 0}, ValueError, "must be -1"),
        ({"max_pending_calls": -2}, ValueError, "only accepts"),
        ({"max_concurrency": 0}, ValueError, "at least 1"),
        ({"max_concurrency": 1.5}, TypeError, "whole number"),
        ({"allow_out_of_order_execution": 1}, TypeError, "must be a bool"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Actor.options(**options)
    with pytest.raises(error, match=text):
        zray.actor(**options)
    with pytest.raises((ValueError, TypeError)):
        zray.remote(**options)(Plain)


def test_an_option_of_neither_tasks_nor_actors_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="'xyzzy' for tasks and actors"):
        zray.remote(max_restarts=1, xyzzy=1)
    with pytest.raises(ValueError, match="did you mean 'max_restarts'"):
        zray.remote(max_restart=1)


@pytest.mark.parametrize(
    ("options", "placed", "held"),
    [
        ({}, {"CPU": 1}, {}),
        ({"num_cpus": 1}, {"CPU": 1}, {"CPU": 1}),
        ({"num_cpus": 0}, {}, {}),
        ({"num_cpus": 0.5}, {"CPU": 0.5}, {"CPU": 0.5}),
        ({"num_gpus": 1}, {"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}),
        ({"num_gpus": 1, "num_cpus": 0}, {"GPU": 1}, {"GPU": 1}),
        ({"resources": {"x": 2}}, {"CPU": 1, "x": 2}, {"CPU": 1, "x": 2}),
        ({"resources": {}}, {"CPU": 1}, {}),
        ({"memory": 100}, {"CPU": 1, "memory": 100}, {"memory": 100}),
    ],
)
def test_resources(
    recorder: Recorder, options: dict[str, Any], placed: dict[str, float], held: dict[str, float]
) -> None:
    Actor.options(**options).remote(1)
    zray.remote(**options)(Plain).remote(1) if options else zray.remote(Plain).remote(1)
    for made in recorder.created:
        unit = limits.RESOURCE_UNIT
        assert {name: amount / unit for name, amount in made.template.resources} == placed
        assert {name: amount / unit for name, amount in made.info.held} == held


def test_options_reach_the_cluster(recorder: Recorder) -> None:
    Actor.options(
        name="n",
        namespace="other",
        lifetime="detached",
        max_restarts=10**30,
        max_task_retries=-1,
        max_pending_calls=5,
        max_concurrency=3,
        get_if_exists=True,
    ).remote(1)
    made = recorder.created[0]
    assert made.get_if_exists
    assert (made.info.name, made.info.namespace, made.info.detached) == ("n", "other", True)
    assert made.info.max_restarts > 10**9 and made.info.max_task_retries == -1
    assert (made.info.max_pending_calls, made.info.max_concurrency) == (5, 3)
    Actor.options(name=None, max_restarts=None).remote(1)
    assert recorder.created[1].info.name == "" and recorder.created[1].info.max_restarts == 0


def test_async_classes_run_many_calls_at_once(recorder: Recorder) -> None:
    cls = zray.actor(Async)
    cls.remote()
    cls.options(max_concurrency=2).remote()
    Actor.remote(1)
    found = [(made.info.is_async, made.info.max_concurrency) for made in recorder.created]
    assert found == [(True, limits.ASYNC_CONCURRENCY), (True, 2), (False, 1)]


def test_get_if_exists(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Actor.options(get_if_exists=True).remote(1)
    older = m.ActorInfo("Older", bytes(16), [("old", 1)], name="n", namespace="space")
    recorder.named["space", "n"] = counted(object_id(b"o" * 16)), older
    handle = Actor.options(name="n", get_if_exists=True).remote(1)
    handle.old.remote(1, 2, 3)  # of that class nothing else is known here
    with pytest.raises(AttributeError, match="the actor Older has no method 'add'; it has: old"):
        handle.add.remote(1)


# ---- methods -------------------------------------------------------------------------------


def test_calls(recorder: Recorder) -> None:
    handle = Actor.options(max_task_retries=2).remote(1)
    ref: ObjectRef[int] = counted(object_id(b"r" * 16))
    assert isinstance(handle.add.remote(1, twice=True), ObjectRef)
    assert len(handle.pair.remote()) == 2  # type: ignore[arg-type]
    assert handle.add.options(num_returns=0).remote(ref) is None
    handle.add.options(max_task_retries=-1, name="x").remote(1)
    handle[Plain.add].remote(3)
    handle.double.remote(1)
    handle.called.remote("x")
    handle.__ray_terminate__.remote()
    handle.__ray_call__.remote(lambda self, n: self.n + n, 5)
    found = [(call.method, call.num_returns, call.retries) for call in recorder.calls]
    assert found == [
        ("add", 1, 2),
        ("pair", 2, 5),
        ("add", 0, 2),
        ("add", 1, -1),
        ("add", 1, 2),
        ("double", 1, 2),
        ("called", 1, 2),
        ("__ray_terminate__", 1, 0),
        ("__ray_call__", 1, 2),
    ]
    assert recorder.calls[2].arguments.dependencies == [ref.id]


@pytest.mark.parametrize(
    ("method", "args", "kwargs"),
    [
        ("add", (), {}),
        ("add", (1, 2), {}),
        ("add", (1,), {"thrice": 1}),
        ("pair", (1,), {}),
        ("double", (), {}),
        ("double", (1, 2), {}),
        ("called", (), {}),
    ],
)
def test_arguments_are_checked_at_the_call(
    recorder: Recorder, method: str, args: Any, kwargs: Any
) -> None:
    handle = Actor.remote(1)
    for _ in range(2):
        with pytest.raises(TypeError, match=rf"Plain\.{method}\(\): "):
            getattr(handle, method).remote(*args, **kwargs)
    handle.anything.remote(*args, **kwargs)
    assert [call.method for call in recorder.calls] == ["anything"]


def test_methods_may_not_be_called_here(recorder: Recorder) -> None:
    handle = Actor.remote(1)
    text = (
        "Actor methods cannot be called directly. Instead of running 'object.add()', try "
        "'object.add.remote()'."
    )
    with pytest.raises(TypeError) as caught:
        handle.add(1)
    assert str(caught.value) == text


def test_what_is_no_method(recorder: Recorder) -> None:
    handle = Actor.remote(1)
    for name in ("ad", "n", "LIMIT", "__len__"):
        with pytest.raises(AttributeError, match="it has: add, anything, called, double"):
            getattr(handle, name)
    for wrong in (0, "add", None):
        with pytest.raises(TypeError, match="takes a method"):
            handle[wrong]  # type: ignore[call-overload]
    with pytest.raises(AttributeError, match="no method 'upper'"):
        handle[str.upper]  # type: ignore[index]
    with pytest.raises(TypeError):
        list(handle)  # type: ignore[call-overload]
    assert {"add", "pair", "__ray_ready__"} <= set(dir(handle))


def test_methods_that_yield(recorder: Recorder) -> None:
    """In a handle that was passed on as well."""
    handle = Actor.remote(1)
    limited = {"_generator_backpressure_num_objects": 3}
    for one in (handle, pickle.loads(pickle.dumps(handle))):
        recorder.calls.clear()
        assert isinstance(one.numbers.remote(), zray.ObjectRefGenerator)
        one.numbers.options(**limited).remote()
        one.numbers.options(num_returns=2).remote()
        calls = [(call.num_returns, *call.yields[:2]) for call in recorder.calls]
        assert calls == [(1, m.ITEMS, 0), (1, m.ITEMS, 3), (2, m.RETURNS, 0)]


@pytest.mark.parametrize(
    "returns",
    [(), (0,), (3,), (1, m.ITEMS), (1, m.ITEMS, 5), (1, m.REFERENCES)],
)
def test_what_calls_bring_is_one_number_in_a_handle(returns: tuple[int, ...]) -> None:
    assert Returns.of_number(Returns(*returns).number()) == Returns(*returns)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"num_return": 2}, ValueError, "for methods of actors; did you mean 'num_returns'"),
        ({"num_returns": -1}, ValueError, "at least 0"),
        ({"num_returns": "stream"}, ValueError, "'streaming' or 'dynamic'"),
        ({"_generator_backpressure_num_objects": 0}, ValueError, "is not allowed"),
        ({"max_task_retries": -2}, ValueError, "only accepts"),
        ({"concurrency_group": 3}, TypeError, "must be None or a string"),
        ({"concurrency_group": ""}, ValueError, "cannot be an empty string"),
        ({"retry_exceptions": 3}, TypeError, "a bool or a list of exceptions"),
        ({"retry_exceptions": [3]}, TypeError, "must list exception classes"),
    ],
)
def test_bad_options_of_methods(
    recorder: Recorder, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Actor.remote(1).add.options(**options)
    with pytest.raises(error, match=text):
        zray.method(**options)


def test_the_group_and_the_retries_of_a_call(recorder: Recorder) -> None:
    method = Actor.remote(1).add
    method.options(concurrency_group="io", max_task_retries=2).remote(1)
    listed = method.options(retry_exceptions=[KeyError], concurrency_group="io")
    listed.options(max_task_retries=-1).remote(1)
    pickle.loads(pickle.dumps(listed)).options(retry_exceptions=False).remote(1)
    first, second, third = recorder.calls
    assert [call.group for call in recorder.calls] == ["io"] * 3
    assert [call.retries for call in recorder.calls] == [2, -1, 0]
    assert first.retry == m.RETRY_AS_DECLARED and third.retry == b""
    assert serialization.loads(second.retry) == (KeyError,)


def test_groups_and_order_reach_the_cluster(recorder: Recorder) -> None:
    class Grouped(Plain):
        @zray.method(concurrency_group="io", max_task_retries=3)
        def read(self) -> None: ...

    made = zray.actor(concurrency_groups={"io": 2, "rest": 1})(Grouped)
    made.remote(1)
    made.options(allow_out_of_order_execution=True).remote(1)
    made.options(max_concurrency=2).remote(1)
    infos = [creation.info for creation in recorder.created]
    assert [info.groups for info in infos] == [[("io", 2), ("rest", 1)]] * 3
    assert [info.out_of_order for info in infos] == [False, True, True]
    assert dict(infos[0].retries) == {"pair": 5, "read": 3}
    with pytest.raises(ValueError, match="out-of-order"):
        made.options(max_concurrency=2, allow_out_of_order_execution=False).remote(1)
    with pytest.raises(ValueError, match="concurrency_groups' is not supported"):
        made.options(concurrency_groups={"io": 1})
    with pytest.raises(ValueError, match="'io', which its class does not have"):
        zray.actor(concurrency_groups={"rest": 1})(Grouped).remote(1)


def test_bind_names_what_to_do_instead(recorder: Recorder) -> None:
    for thing in (Actor, Actor.remote(1).add):
        with pytest.raises(NotImplementedError, match=r"call \.remote"):
            thing.bind(1)


def test_the_method_decorator() -> None:
    def f(self: Any) -> None: ...

    assert zray.method(f) is f and zray.method(num_returns=1)(f) is f
    with pytest.raises(TypeError, match="takes a method"):
        zray.method(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="must be applied"):
        zray.method(f, num_returns=2)  # type: ignore[call-overload]


def test_actors_of_builtin_classes(recorder: Recorder) -> None:
    handle = zray.remote(dict).remote(a=1)
    handle.get.remote("a")
    assert [call.method for call in recorder.calls] == ["get"]


# ---- handles -------------------------------------------------------------------------------


def test_handles_are_values(recorder: Recorder) -> None:
    one, other = Actor.remote(1), Actor.remote(1)
    again = pickle.loads(pickle.dumps(one))
    assert one == again and hash(one) == hash(again) and one != other and one != 3
    assert {one: 1}[again] == 1
    assert repr(one) == repr(again) == f"Actor(Plain, {'01' * 16})"
    assert one._actor_id.hex() == "01" * 16
    again.add.remote(2)
    again.pair.remote()
    third = pickle.loads(pickle.dumps(again))
    third.pair.remote()
    assert [call.retries for call in recorder.calls] == [0, 5, 5]


def test_a_pickled_handle_holds_its_actor(recorder: Recorder) -> None:
    handle = Actor.remote(1)
    method = handle.add
    for value in (handle, {"a": [handle]}, method, lambda: handle):
        data, contained = serialization.dumps(value)
        assert contained == [object_id(handle._actor_id)]
        assert serialization.loads(data) is not None
    arguments = serialization.dumps_arguments((handle,), {}, ObjectRef)
    assert arguments.nested == [object_id(handle._actor_id)] and not arguments.dependencies
    assert not recorder.pinned
    pickle.dumps(handle)  # out of zray's sight
    assert recorder.pinned == [object_id(handle._actor_id)]


def test_a_method_keeps_its_actor_and_a_handle_no_cycle(recorder: Recorder) -> None:
    handle = Actor.remote(1)
    method = handle.add
    references.take_dropped()
    del handle
    assert references.take_dropped() == []
    method.remote(1)
    references.take_dropped()
    del method
    assert references.take_dropped() == [object_id(b"\x01" * 16)]


def test_a_pickled_method(recorder: Recorder) -> None:
    handle = Actor.remote(1)
    pickle.loads(pickle.dumps(handle.pair)).remote()
    pickle.loads(pickle.dumps(handle.add.options(num_returns=3))).remote(1)
    found = [(call.method, call.num_returns, call.retries) for call in recorder.calls]
    assert found == [("pair", 2, 5), ("add", 3, 0)]


# ---- by name or handle ---------------------------------------------------------------------


def test_get_actor(recorder: Recorder) -> None:
    info = m.ActorInfo("Found", bytes(16), [("f", 1)], name="n", namespace="space")
    recorder.named["space", "n"] = counted(object_id(b"n" * 16)), info
    handle = zray.get_actor("n")
    assert handle == zray.get_actor("n", "space") and repr(handle).startswith("Actor(Found, 6e6e")
    with pytest.raises(zray.errors.ActorNotFoundError, match="Failed to look up actor with name"):
        zray.get_actor("n", namespace="elsewhere")
    assert issubclass(zray.errors.ActorNotFoundError, ValueError)
    with pytest.raises(ValueError, match="non-empty value to get_actor"):
        zray.get_actor("")
    with pytest.raises(TypeError, match="must be a string"):
        zray.get_actor(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a valid namespace"):
        zray.get_actor("n", "")


def test_list_named_actors(recorder: Recorder) -> None:
    info = m.ActorInfo("Found", bytes(16), [])
    for key in (("space", "a"), ("other", "b")):
        recorder.named[key] = counted(object_id(bytes(16))), info
    assert zray.util.list_named_actors() == ["a"]
    assert zray.util.list_named_actors(all_namespaces=True) == [
        {"namespace": "space", "name": "a"},
        {"namespace": "other", "name": "b"},
    ]


def test_kill(recorder: Recorder) -> None:
    handle = Actor.remote(1)
    zray.kill(handle)
    zray.kill(handle, no_restart=False)
    assert recorder.killed == [(handle._actor_id, True), (handle._actor_id, False)]
    with pytest.raises(ValueError, match=r"only supported for actors.*Got: <class 'int'>"):
        zray.kill(5)  # type: ignore[arg-type]


def test_exit_actor_is_for_actors() -> None:
    for leave in (zray.exit_actor, zray.actor.exit_actor):
        with pytest.raises(TypeError, match="non-actor worker"):
            leave()
