"""Contracts of references and handles inside of values: where they come out, and what they keep."""

from __future__ import annotations

import copy
import gc
import time

import numpy as np
import pytest
import ray
from ray.exceptions import RayTaskError

from tests.conformance.functions import same, slow

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def kinds(*values):
    return [type(value).__name__ for value in values]


@ray.remote
class Box:
    def __init__(self, value=None):
        self.value = value

    def set(self, value):
        self.value = value

    def get(self):
        return self.value

    def get_inside(self):
        return ray.get(self.value)


def test_only_arguments_themselves_are_resolved() -> None:
    """A reference as an argument is its value; one in a list, tuple, dict or set stays."""
    ref = ray.put(1)
    inside = same.remote({"a": [ref], "b": (ref,), "c": {ref}})
    found = ray.get(inside)

    assert ray.get(kinds.remote(ref, [ref], (ref,))) == ["int", "list", "tuple"]
    assert found == {"a": [ref], "b": (ref,), "c": {ref}}
    assert ray.get(found["a"][0]) == 1


def test_keyword_arguments_are_resolved_too() -> None:
    """``f.remote(x=ref)`` gets the value."""

    @ray.remote
    def f(x, *, y):
        return x + y

    assert ray.get(f.remote(x=ray.put(1), y=same.remote(2))) == 3


def test_a_reference_of_a_reference() -> None:
    """An argument is resolved once: what it contains stays a reference."""
    outer = same.remote([ray.put(5)])

    @ray.remote
    def f(value):
        return ray.get(value[0])

    assert ray.get(f.remote(outer)) == 5


def test_a_task_that_returns_a_reference() -> None:
    """``get`` gives the reference, and ``get`` of that the value."""

    @ray.remote
    def f():
        return same.remote(7)

    inner = ray.get(f.remote())
    assert isinstance(inner, ray.ObjectRef)
    assert ray.get(inner) == 7


def test_a_chain_of_returned_references() -> None:
    """However deep it is."""

    @ray.remote
    def f(depth):
        return f.remote(depth - 1) if depth else "deep"

    ref = f.remote(5)
    while isinstance(ref, ray.ObjectRef):
        ref = ray.get(ref)
    assert ref == "deep"


def test_references_in_a_deep_container() -> None:
    """Lists in dicts in tuples, a hundred deep."""
    value = ray.put("inside")
    for i in range(100):
        value = [value] if i % 2 else {"k": (value,)}

    found = ray.get(same.remote(value))
    for i in reversed(range(100)):
        found = found[0] if i % 2 else found["k"][0]
    assert ray.get(found) == "inside"


def test_references_in_a_container_that_contains_itself() -> None:
    """Cycles are kept, and references in them work."""
    value = {"ref": ray.put(3)}
    value["self"] = [value]

    found = ray.get(same.remote(value))
    assert found["self"][0] is found
    assert ray.get(found["ref"]) == 3


def test_references_as_keys() -> None:
    """A dict or set of references can be passed and asked."""
    refs = [ray.put(i) for i in range(5)]
    table = {ref: i for i, ref in enumerate(refs)}

    found = ray.get(same.remote(table))
    assert [found[ref] for ref in refs] == [*range(5)]
    assert {ray.get(ref) for ref in {*found}} == {*range(5)}


def test_references_in_attributes() -> None:
    """Of an object of a class of one's own."""

    class Holder:
        def __init__(self, ref):
            self.ref = ref

    @ray.remote
    def f(holder):
        return ray.get(holder.ref)

    assert ray.get(f.remote(Holder(ray.put(4)))) == 4


def test_references_in_an_array_of_objects() -> None:
    """A numpy array of references."""
    array = np.empty(3, dtype=object)
    for i in range(3):
        array[i] = ray.put(i)

    assert ray.get([*ray.get(same.remote(array))]) == [0, 1, 2]


def test_a_reference_in_a_closure() -> None:
    """A function that was made with a reference around it can use it."""
    ref = ray.put("captured")

    @ray.remote
    def f():
        return ray.get(ref)

    assert ray.get(f.remote()) == "captured"


def test_a_captured_reference_of_a_pending_task() -> None:
    """The same when the value is not there yet."""
    ref = slow.remote(0.5, "later")

    @ray.remote
    def f():
        return ray.get(ref)

    assert ray.get(f.remote(), timeout=30) == "later"


def test_a_handle_in_a_closure() -> None:
    """And with an actor's handle."""
    box = Box.remote(2)

    @ray.remote
    def f():
        return ray.get(box.get.remote())

    assert ray.get(f.remote()) == 2
    ray.kill(box)


def test_a_reference_as_a_default() -> None:
    """A parameter's default that is a reference stays one."""
    ref = ray.put(9)

    @ray.remote
    def f(x=ref):
        return ray.get(x) if isinstance(x, ray.ObjectRef) else x

    assert ray.get(f.remote()) == 9


def test_an_object_lives_in_an_actor() -> None:
    """An actor that keeps a reference keeps its object, though the driver has dropped its own."""
    box = Box.remote()
    ref = ray.put(np.arange(100_000))
    ray.get(box.set.remote([ref]))
    del ref
    gc.collect()
    time.sleep(0.5)

    assert ray.get(box.get_inside.remote())[0].sum() == np.arange(100_000).sum()


def test_an_object_lives_in_another_object() -> None:
    """Through two levels of ``put``."""
    inner = ray.put(np.ones(50_000))
    outer = ray.put([ray.put([inner])])
    del inner
    gc.collect()
    time.sleep(0.3)

    ((found,),) = (ray.get(ray.get(outer)[0]),)
    assert ray.get(found).sum() == 50_000


def test_a_put_in_a_task_outlives_it() -> None:
    """A reference that a task returns is good after the task."""

    @ray.remote
    def f():
        return [ray.put(i) for i in range(10)]

    refs = ray.get(f.remote())
    time.sleep(0.3)
    assert ray.get(refs) == [*range(10)]


def test_a_put_in_an_actor_is_passed_on() -> None:
    """From actor to task by way of the driver."""

    @ray.remote
    class Maker:
        def make(self):
            return ray.put("made")

    maker = Maker.remote()
    ref = ray.get(maker.make.remote())
    assert ray.get(same.remote(ref)) == "made"


def test_a_result_is_passed_before_it_is_there() -> None:
    """A pending reference in a list can be waited for elsewhere."""

    @ray.remote
    def f(refs):
        ready, _ = ray.wait(refs, num_returns=len(refs))
        return ray.get(ready)

    assert ray.get(f.remote([slow.remote(0.3, 1), same.remote(2)]), timeout=30) == [1, 2]


def test_references_are_copied() -> None:
    """``copy`` and ``deepcopy`` of a reference are equal to it."""
    ref = ray.put(1)

    assert copy.copy(ref) == ref
    assert copy.deepcopy([ref]) == [ref]
    assert ray.get(copy.deepcopy({"a": ref})["a"]) == 1


def test_references_are_sorted_by_nobody() -> None:
    """References have no order."""
    with pytest.raises(TypeError):
        sorted([ray.put(1), ray.put(2)])


def test_a_reference_is_no_value() -> None:
    """It cannot be iterated over, called, or asked for its length."""
    ref = ray.put([1, 2])

    with pytest.raises(TypeError):
        iter(ref)
    with pytest.raises(TypeError):
        len(ref)
    with pytest.raises(TypeError):
        ref + 1
    assert bool(ref) is True


def test_a_reference_equals_no_text() -> None:
    """Nor its own id."""
    ref = ray.put(1)

    assert ref != ref.hex()
    assert ref != ref.binary()
    assert ref is not None
    assert ref not in ["x", None, 1]


def test_an_exception_that_holds_a_reference() -> None:
    """Its reference is good where it is caught, if the driver has the object, too."""

    class WithReference(Exception):
        def __init__(self, ref):
            super().__init__("held")
            self.ref = ref

    @ray.remote
    def f(refs):
        raise WithReference(refs[0])

    ref = ray.put("inside")
    with pytest.raises(RayTaskError) as caught:
        ray.get(f.remote([ref]))
    assert ray.get(caught.value.cause.ref) == "inside"


def test_a_handle_in_an_exception() -> None:
    """The same of a handle."""
    box = Box.remote(3)

    @ray.remote
    def f(values):
        raise ValueError("held", values[0])

    with pytest.raises(ValueError) as caught:
        ray.get(f.remote([box]))
    assert ray.get(caught.value.cause.args[1].get.remote()) == 3
    ray.kill(box)


def test_a_handle_is_pickled() -> None:
    """``ray.cloudpickle`` of a handle is a handle of the same actor, also elsewhere."""
    box = Box.remote(1)
    data = ray.cloudpickle.dumps(box)

    @ray.remote
    def f(data):
        return ray.get(ray.cloudpickle.loads(data).get.remote())

    assert ray.get(ray.cloudpickle.loads(data).get.remote()) == 1
    assert ray.get(f.remote(data)) == 1
    ray.kill(box)


def test_a_pickled_reference_elsewhere() -> None:
    """``ray.cloudpickle`` of a reference works in a task of the same job."""
    ref = ray.put("out of band")
    data = ray.cloudpickle.dumps({"ref": ref})

    @ray.remote
    def f(data):
        return ray.get(ray.cloudpickle.loads(data)["ref"])

    assert ray.get(f.remote(data)) == "out of band"


def test_a_pickled_reference_keeps_its_object() -> None:
    """Its object stays, though no other reference is left."""
    data = ray.cloudpickle.dumps(ray.put("pinned"))
    gc.collect()
    time.sleep(0.5)

    assert ray.get(ray.cloudpickle.loads(data)) == "pinned"


def test_a_bound_method_of_a_handle() -> None:
    """``handle.method`` can be kept and called later."""
    box = Box.remote(6)
    get = box.get

    assert ray.get([get.remote(), get.remote()]) == [6, 6]


def test_a_handle_of_a_method_is_passed() -> None:
    """``handle.method`` can be an argument."""
    box = Box.remote(6)

    @ray.remote
    def f(method):
        return ray.get(method.remote())

    assert ray.get(f.remote(box.get)) == 6


def test_handles_as_keys() -> None:
    """A dict of handles."""
    boxes = [Box.remote(i) for i in range(3)]
    table = {box: i for i, box in enumerate(boxes)}

    assert [table[box] for box in boxes] == [0, 1, 2]


def test_many_arguments() -> None:
    """A call with three hundred references."""

    @ray.remote
    def add(*numbers):
        return sum(numbers)

    assert ray.get(add.remote(*[ray.put(i) for i in range(300)])) == sum(range(300))


def test_the_same_reference_as_several_arguments() -> None:
    """Each is the value."""

    @ray.remote
    def f(a, b, *, c):
        return a + b + c

    ref = same.remote(2)
    assert ray.get(f.remote(ref, ref, c=ref)) == 6


def test_arguments_are_one_objects_value() -> None:
    """An argument that is given twice by value is one object in the task, as for pickle."""
    value = [1]

    @ray.remote
    def f(pair):
        return pair[0] is pair[1]

    assert ray.get(f.remote((value, value))) is True


def test_changes_of_an_argument_stay_there() -> None:
    """What a task does to its argument is not seen by the driver."""
    value = [1]

    @ray.remote
    def f(value):
        value.append(2)
        return value

    assert ray.get(f.remote(value)) == [1, 2]
    assert value == [1]


def test_a_value_is_what_it_was_at_the_call() -> None:
    """What the driver does to it afterwards is not seen by the task."""
    value = [1]
    ref = same.remote(value)
    put = ray.put(value)
    value.append(2)

    assert ray.get([ref, put]) == [[1], [1]]


def test_references_of_a_tasks_own_in_a_dict() -> None:
    """What a task has put and submitted comes out of its result."""

    @ray.remote
    def f(value):
        return {"refs": [ray.put(value), same.remote(value)]}

    found = ray.get(f.remote(5))
    assert ray.get(found["refs"]) == [5, 5]
