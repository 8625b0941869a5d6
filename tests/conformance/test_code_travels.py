"""Contracts of how code travels: classes, closures, the main program's names, notebook cells."""

from __future__ import annotations

import abc
import array
import collections
import dataclasses
import enum
import functools
import operator
import threading
import types
import typing

import numpy as np
import pytest
import ray

from tests.conformance.functions import same

pytestmark = pytest.mark.usefixtures("cluster")


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int
    y: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Nested:
    inner: Frozen
    more: dict


class Flags(enum.Flag):
    A = 1
    B = 2


class Named(typing.NamedTuple):
    x: int
    y: str = "d"


class Typed(typing.TypedDict):
    x: int


class Stateful:
    def __init__(self, x):
        self.x = x
        self.lock = threading.Lock()

    def __getstate__(self):
        return {"x": self.x}

    def __setstate__(self, state):
        self.__init__(state["x"])

    def __eq__(self, other):
        return type(other) is Stateful and other.x == self.x

    __hash__ = None


class NewArgs:
    def __new__(cls, x):
        made = super().__new__(cls)
        made.x = x
        return made

    def __getnewargs__(self):
        return (self.x,)

    def __eq__(self, other):
        return type(other) is NewArgs and other.x == self.x

    __hash__ = None


class TextOfOnesOwn(str):
    __slots__ = ()


class ListOfOnesOwn(list):
    pass


class DictOfOnesOwn(dict):
    pass


@pytest.mark.parametrize(
    "value",
    [
        Frozen(1),
        Slotted(1, [2]),
        Nested(Frozen(1), {"a": Frozen(2)}),
        Flags.A | Flags.B,
        Named(1),
        Typed(x=1),
        Stateful(3),
        NewArgs(4),
        TextOfOnesOwn("t"),
        ListOfOnesOwn([1]),
        DictOfOnesOwn(a=1),
        types.SimpleNamespace(a=1),
        array.array("d", [1.0, 2.0]),
        range(3),
        slice(1, 2, 3),
        frozenset({1}),
        complex(1, 2),
        Ellipsis,
        NotImplemented,
        collections.ChainMap({"a": 1}),
        np.datetime64("2020-01-01"),
        np.timedelta64(3, "s"),
        types.MappingProxyType,
        2**200,
        -(2**63) - 1,
        "\ud800",
        "\u00e9" * 1000,
        b"",
        (),
        {1: {2: {3: [4]}}},
        operator.itemgetter(1)([0, 5]),
        int | str,
        list[int],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back(value) -> None:
    """What a task returns of its argument is equal, and of the same type."""
    found = ray.get(same.remote(value))

    assert found == value
    assert type(found) is type(value)


def test_arrays_of_other_kinds() -> None:
    """Masked arrays, records, and views of parts."""
    masked = np.ma.array([1, 2, 3], mask=[0, 1, 0])
    assert (ray.get(same.remote(masked)).mask == masked.mask).all()
    records = np.rec.array([(1, "a")], dtype=[("n", "i4"), ("t", "U1")])
    assert ray.get(same.remote(records)).n[0] == 1
    whole = np.arange(1_000_000)
    assert (ray.get(same.remote(whole[::1000])) == whole[::1000]).all()
    assert (ray.get(same.remote(whole[5:])) == whole[5:]).all()


@pytest.mark.parametrize("bytes_", [8, 800, 8_000, 60_000, 80_000, 8_000_000])
@pytest.mark.parametrize(
    "way", ["put", "returned", "in a list", "argument", "plain argument", "of a call"]
)
def test_arrays_are_aligned(way, bytes_) -> None:
    """However they come, they begin at a multiple of 64 bytes."""

    @ray.remote
    def make():
        return np.arange(bytes_ // 8)

    @ray.remote
    def place(made):
        return made.ctypes.data % 64, int(made.sum())

    @ray.remote
    class Keeper:
        def swap(self, given):
            self.kept = given
            return made

        def place(self):
            return self.kept.ctypes.data % 64

    made = np.arange(bytes_ // 8)
    if way == "argument":
        at, total = ray.get(place.remote(ray.put(made)))
    elif way == "plain argument":
        at, total = ray.get(place.remote(made))
    elif way == "of a call":
        keeper = Keeper.remote()
        found = ray.get(keeper.swap.remote(made))
        at, total = found.ctypes.data % 64 + ray.get(keeper.place.remote()), int(found.sum())
    else:
        found = {
            "put": lambda: ray.get(ray.put(made)),
            "returned": lambda: ray.get(make.remote()),
            "in a list": lambda: ray.get(ray.put([b"xyz", made, made + 1]))[1],
        }[way]()
        at, total = found.ctypes.data % 64, int(found.sum())
    assert at == 0
    assert total == int(made.sum())


@pytest.mark.parametrize("count", [10, 1_000, 100_000])
@pytest.mark.parametrize("stored", [True, False])
def test_arrays_are_read_only(count, stored) -> None:
    """Those that come from the store, and arguments of a task; a copy can be changed."""

    @ray.remote
    def f(made):
        with pytest.raises(ValueError):
            made[0] = 1
        changed = made.copy()
        changed[0] = 5
        return int(changed[0])

    array = np.zeros(count)
    assert ray.get(f.remote(ray.put(array) if stored else array)) == 5
    assert array[0] == 0 and array.flags.writeable


@pytest.mark.parametrize(
    "make",
    [threading.Lock, lambda: (i for i in ()), threading.current_thread],
    ids=["lock", "generator", "thread"],
)
def test_what_cannot_be_pickled(make) -> None:
    """As an argument or in ``put`` it is a TypeError, which says of what."""
    value = make()
    with pytest.raises(TypeError):
        ray.put(value)
    with pytest.raises(TypeError):
        same.remote(value)
    with pytest.raises(TypeError):
        same.remote([value])


def test_a_function_that_captures_what_cannot_be_pickled() -> None:
    """``remote()`` is a TypeError that names the function."""
    lock = threading.Lock()

    @ray.remote
    def uses_a_lock():
        return lock

    with pytest.raises(TypeError, match="uses_a_lock"):
        uses_a_lock.remote()


def test_an_actor_that_captures_what_cannot_be_pickled() -> None:
    """The same of a class."""
    lock = threading.Lock()

    @ray.remote
    class UsesALock:
        def go(self):
            return lock

    with pytest.raises(TypeError, match="UsesALock"):
        UsesALock.remote()


# ---- functions -----------------------------------------------------------------------------


def test_a_function_that_calls_itself() -> None:
    """A local function sees itself."""

    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    @ray.remote
    def f(n):
        return factorial(n)

    assert ray.get(f.remote(6)) == 720


def test_functions_that_call_each_other() -> None:
    """And the other one."""

    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    @ray.remote
    def f(n):
        return even(n)

    assert ray.get(f.remote(10)) is True


def test_a_remote_function_that_calls_itself() -> None:
    """By ``remote``, though it is local."""

    @ray.remote
    def f(n):
        return 1 if n < 2 else n * ray.get(f.remote(n - 1))

    assert ray.get(f.remote(5)) == 120


def test_defaults_and_keywords() -> None:
    """Of every kind of parameter."""

    @ray.remote
    def f(a, /, b, *rest, c, d=4, **more):
        return a, b, rest, c, d, more

    assert ray.get(f.remote(1, 2, 3, c=5, e=6)) == (1, 2, (3,), 5, 4, {"e": 6})


def test_a_closure_is_taken_at_the_first_call() -> None:
    """What a captured name means then is what it means in all tasks."""
    value = 1

    @ray.remote
    def f():
        return value

    assert ray.get(f.remote()) == 1
    value = 2
    assert ray.get(f.remote()) == 1


def test_a_changed_container_in_a_closure() -> None:
    """Nor does the task see what the driver does to it."""
    values = [1]

    @ray.remote
    def f():
        return values

    assert ray.get(f.remote()) == [1]
    values.append(2)
    assert ray.get(f.remote()) == [1]


def test_a_lambda_is_remote() -> None:
    """``ray.remote`` of a lambda."""
    assert ray.get(ray.remote(lambda x: x + 1).remote(1)) == 2


def test_a_partial_of_a_remote_function() -> None:
    """``functools.partial(f.remote, 1)``."""

    @ray.remote
    def add(a, b):
        return a + b

    assert ray.get(functools.partial(add.remote, 1)(2)) == 3


def test_methods_and_callables_as_values() -> None:
    """Bound methods, partials, callables of a class."""

    class Adder:
        def __init__(self, n):
            self.n = n

        def __call__(self, x):
            return x + self.n

        def add(self, x):
            return x + self.n

        @classmethod
        def make(cls):
            return cls(5)

        @staticmethod
        def nothing():
            return None

        @property
        def doubled(self):
            return self.n * 2

    @ray.remote
    def call(function, *args):
        return function(*args)

    adder = Adder(2)
    assert ray.get(call.remote(adder, 1)) == 3
    assert ray.get(call.remote(adder.add, 1)) == 3
    assert ray.get(call.remote(functools.partial(adder.add, 1))) == 3
    assert ray.get(call.remote(Adder.make)).doubled == 10
    assert ray.get(call.remote(Adder.nothing)) is None


# ---- classes -------------------------------------------------------------------------------


def test_a_local_class_with_super() -> None:
    """``super()`` works in a class that has travelled."""

    class Base:
        def __init__(self, x):
            self.x = x

        def value(self):
            return self.x

    class Derived(Base):
        def __init__(self, x):
            super().__init__(x)

        def value(self):
            return super().value() + 1

    @ray.remote
    def f(cls):
        return cls(1).value()

    assert ray.get(f.remote(Derived)) == 2


def test_an_instance_of_a_local_class_is_of_it() -> None:
    """Also when the task has made it."""

    class Local:
        def __init__(self, x):
            self.x = x

    @ray.remote
    def make():
        return Local(3)

    found = ray.get(make.remote())
    assert isinstance(found, Local)
    assert found.x == 3


def test_a_class_that_names_itself() -> None:
    """In its methods."""

    class Node:
        def __init__(self, next_=None):
            self.next = next_

        def push(self):
            return Node(self)

    @ray.remote
    def f(node):
        return isinstance(node.push().next, Node)

    assert ray.get(f.remote(Node())) is True


def test_abstract_and_generic_classes() -> None:
    """ABCs, generics, protocols, metaclasses."""
    T = typing.TypeVar("T")

    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self): ...

    class Square(Shape):
        def area(self):
            return 4

    class Stack(typing.Generic[T]):
        def __init__(self):
            self.items: list[T] = []

    class Meta(type):
        def __call__(cls, *args):
            made = super().__call__(*args)
            made.tag = "meta"
            return made

    class WithMeta(metaclass=Meta):
        pass

    @ray.remote
    def f(square, stack, made):
        return isinstance(square, Shape), square.area(), stack.items, made.tag

    assert ray.get(f.remote(Square(), Stack(), WithMeta())) == (True, 4, [], "meta")


def test_a_local_dataclass_and_enum() -> None:
    """Defined in a function."""

    @dataclasses.dataclass
    class Local:
        x: int

    class Kind(enum.Enum):
        A = 1

    @ray.remote
    def f(local, kind):
        return Local(local.x + 1), kind is Kind.A, Kind.A

    local, same_kind, kind = ray.get(f.remote(Local(1), Kind.A))
    assert local == Local(2)
    assert same_kind is True
    assert kind is Kind.A


# ---- the main program ----------------------------------------------------------------------


def test_what_the_main_program_defines(program) -> None:
    """Functions, classes, constants, dataclasses and enums of the script itself."""
    done = program(
        """
        import dataclasses, enum

        LIMIT = 10

        @dataclasses.dataclass
        class Point:
            x: int

        class Kind(enum.Enum):
            A = 1

        class Wrong(Exception):
            pass

        def helper(x):
            return min(x, LIMIT)

        @ray.remote
        def f(point, kind):
            assert isinstance(point, Point) and kind is Kind.A
            return Point(helper(point.x)), Kind.A

        @ray.remote
        def g():
            raise Wrong("of the script")

        @ray.remote
        class Counter:
            def __init__(self, point):
                self.point = point

            def add(self):
                self.point.x += 1
                return self.point

        if __name__ == "__main__":
            ray.init(num_cpus=2, include_dashboard=False)
            point, kind = ray.get(f.remote(Point(50), Kind.A))
            print(isinstance(point, Point), point.x, kind is Kind.A)
            counter = Counter.remote(Point(1))
            print(ray.get(counter.add.remote()) == Point(2))
            try:
                ray.get(g.remote())
            except Wrong as error:
                print("caught", error.cause)
        """
    )

    assert done.stdout.splitlines()[-3:] == ["True 10 True", "True", "caught of the script"]


def test_a_global_that_changes(program) -> None:
    """A function has the globals of when it was first called."""
    done = program(
        """
        VALUE = 1

        @ray.remote
        def f():
            return VALUE

        ray.init(num_cpus=1, include_dashboard=False)
        first = ray.get(f.remote())
        VALUE = 2
        print(first, ray.get(f.remote()))
        """
    )

    assert done.stdout.split()[-2:] == ["1", "1"]


def test_a_main_module_without_a_guard(program) -> None:
    """Workers do not run the script again."""
    done = program(
        """
        print("begin", flush=True)
        ray.init(num_cpus=1, include_dashboard=False)

        @ray.remote
        def f():
            return 1

        print(ray.get(f.remote()), flush=True)
        """
    )

    assert done.stdout.count("begin") == 1


def test_modules_of_the_scripts_folder(program, tmp_path) -> None:
    """A module beside the script is imported by the tasks, too."""
    (tmp_path / "beside.py").write_text("def f(x):\n    return x + 1\n\nclass C:\n    n = 3\n")
    done = program(
        """
        import beside

        ray.init(num_cpus=1, include_dashboard=False)

        @ray.remote
        def f():
            return beside.f(1), beside.C()

        n, c = ray.get(f.remote())
        print(n, c.n, isinstance(c, beside.C))
        """
    )

    assert done.stdout.split()[-3:] == ["2", "3", "True"]


def test_modules_imported_in_the_function(program) -> None:
    """And under other names, and parts of them."""
    done = program(
        """
        import os.path as p
        from collections import Counter as C

        ray.init(num_cpus=1, include_dashboard=False)

        @ray.remote
        def f():
            import json
            return p.basename("/a/b"), C("aab")["a"], json.dumps({})

        print(*ray.get(f.remote()))
        """
    )

    assert done.stdout.split()[-3:] == ["b", "2", "{}"]


def test_doctest_style_redefinition(program) -> None:
    """A function and a class that are defined a second time under their names are new ones."""
    done = program(
        """
        ray.init(num_cpus=2, include_dashboard=False)
        found = []
        for n in (1, 2):
            exec(
                f"@ray.remote\\ndef f():\\n    return helper()\\n"
                f"def helper():\\n    return {n}\\n"
                f"@ray.remote\\nclass A:\\n    def go(self):\\n        return {n} * 10\\n",
                globals(),
            )
            found += [ray.get(f.remote()), ray.get(A.remote().go.remote())]
        print(*found)
        """
    )

    assert done.stdout.split()[-4:] == ["1", "10", "2", "20"]


# ---- notebooks -----------------------------------------------------------------------------

CELLS = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()

def cell(text):
    found = shell.run_cell(text)
    found.raise_error()
    return found.result
"""


def test_functions_of_cells(program) -> None:
    """A function of a cell runs with what other cells have defined; defined again it is new."""
    done = program(
        CELLS
        + """
cell("import ray; ray.init(num_cpus=2, include_dashboard=False); FACTOR = 3")
cell("def helper(x):\\n    return x * FACTOR")
cell("@ray.remote\\ndef f(x):\\n    return helper(x)")
first = cell("ray.get(f.remote(2))")
cell("def helper(x):\\n    return x * 100")
cell("@ray.remote\\ndef f(x):\\n    return helper(x)")
print(first, cell("ray.get(f.remote(2))"))
"""
    )

    assert done.stdout.split()[-2:] == ["6", "200"]


def test_classes_of_cells(program) -> None:
    """Classes and actors of cells, instances that come back, and definitions that change."""
    done = program(
        CELLS
        + """
cell("import ray; ray.init(num_cpus=2, include_dashboard=False)")
cell("class Point:\\n    def __init__(self, x):\\n        self.x = x")
cell("@ray.remote\\nclass A:\\n    def make(self, x):\\n        return Point(x)")
cell("point = ray.get(A.remote().make.remote(1))")
first = cell("(isinstance(point, Point), point.x)")
cell("@ray.remote\\nclass A:\\n    def make(self, x):\\n        return Point(x + 10)")
print(first, cell("ray.get(A.remote().make.remote(1)).x"))
"""
    )

    assert done.stdout.split()[-3:] == ["(True,", "1)", "11"]


def test_errors_of_cells(program) -> None:
    """The text of an error has the cell's line."""
    done = program(
        CELLS
        + """
cell("import ray; ray.init(num_cpus=1, include_dashboard=False)")
cell("@ray.remote\\ndef f():\\n    unusual_name = 1 / 0\\n    return unusual_name")
try:
    shell.user_ns["ray"].get(shell.user_ns["f"].remote())
except ZeroDivisionError as error:
    print("unusual_name" in str(error), "in f" in str(error))
"""
    )

    assert done.stdout.split()[-1] == "True"


def test_await_in_cells(program) -> None:
    """A cell may await a reference."""
    done = program(
        CELLS
        + """
cell("import ray; ray.init(num_cpus=1, include_dashboard=False)")
cell("@ray.remote\\ndef f():\\n    return 5")
print(cell("await f.remote()"))
"""
    )

    assert done.stdout.split()[-1] == "5"


# ---- pydantic ------------------------------------------------------------------------------


def test_pydantic_models(program) -> None:
    """Models of the script go there and back, as arguments, results and attributes of actors."""
    done = program(
        """
        import typing
        from pydantic import BaseModel, ValidationError, field_validator

        class Inner(BaseModel):
            x: int

        class Model(BaseModel):
            name: str
            inner: Inner
            many: list[Inner] = []
            maybe: typing.Optional[float] = None

            @field_validator("name")
            @classmethod
            def check(cls, value):
                if value == "bad":
                    raise ValueError("a bad name")
                return value

        @ray.remote
        def f(model):
            assert isinstance(model, Model)
            return Model(name=model.name + "!", inner=Inner(x=model.inner.x + 1))

        @ray.remote
        def bad():
            Model(name="bad", inner={"x": 1})

        @ray.remote
        class Holder:
            def __init__(self, model):
                self.model = model

            def get(self):
                return self.model

        ray.init(num_cpus=2, include_dashboard=False)
        found = ray.get(f.remote(Model(name="m", inner=Inner(x=1))))
        print(found == Model(name="m!", inner=Inner(x=2)), isinstance(found, Model))
        print(ray.get(Holder.remote(found).get.remote()) == found)
        try:
            ray.get(bad.remote())
        except Exception as error:
            print("a bad name" in str(error), isinstance(error, ray.exceptions.RayTaskError))
        """
    )

    assert done.stdout.splitlines()[-3:] == ["True True", "True", "True True"]


# ---- serializers ---------------------------------------------------------------------------


class Locked:
    def __init__(self, x):
        self.x = x
        self.lock = threading.Lock()


@pytest.fixture
def registered():
    """Locked can be pickled."""
    ray.util.register_serializer(
        Locked, serializer=lambda value: value.x, deserializer=lambda x: Locked(x)
    )
    yield
    ray.util.deregister_serializer(Locked)


def test_a_serializer_is_used_in_results(registered) -> None:
    """A task that has the serializer returns such a thing."""

    @ray.remote
    def f(value):
        return value.x + 1

    assert ray.get(f.remote(Locked(1))) == 2


def test_a_serializer_is_used_deep_inside(registered) -> None:
    """In containers, and for each of many."""
    values = {"a": [Locked(i) for i in range(3)]}

    assert [one.x for one in ray.get(ray.put(values))["a"]] == [0, 1, 2]


def test_a_serializer_is_used_in_closures(registered) -> None:
    """And in what a function captures."""
    value = Locked(5)

    @ray.remote
    def f():
        return value.x

    assert ray.get(f.remote()) == 5


def test_a_serializer_of_an_actors_argument(registered) -> None:
    """And of constructors and methods."""

    @ray.remote
    class Actor:
        def __init__(self, value):
            self.x = value.x

        def add(self, value):
            return self.x + value.x

    assert ray.get(Actor.remote(Locked(1)).add.remote(Locked(2))) == 3


def test_a_serializer_of_an_exception(program) -> None:
    """An exception that pickle cannot rebuild goes by a serializer of its own."""
    done = program(
        """
        class Hard(Exception):
            def __init__(self, *, code):
                super().__init__(f"code {code}")
                self.code = code

        ray.init(num_cpus=1, include_dashboard=False)

        @ray.remote
        def f():
            ray.util.register_serializer(
                Hard, serializer=lambda e: {"code": e.code}, deserializer=lambda d: Hard(**d)
            )
            raise Hard(code=5)

        try:
            ray.get(f.remote())
        except Exception as error:
            print(error.cause.code, isinstance(error, Hard))
        """
    )

    assert done.stdout.split()[-2:] == ["5", "True"]


def test_a_serializer_twice(registered) -> None:
    """The later one counts."""
    ray.util.register_serializer(
        Locked, serializer=lambda value: value.x, deserializer=lambda x: Locked(x * 10)
    )

    assert ray.get(ray.put(Locked(2))).x == 20


def test_deregistering_what_is_not_registered() -> None:
    """Does nothing."""

    class Nobody:
        pass

    ray.util.deregister_serializer(Nobody)
