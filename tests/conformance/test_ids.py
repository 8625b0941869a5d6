"""Contracts of the id classes."""

from __future__ import annotations

import pickle

import pytest
import ray

UNIQUE = ["NodeID", "WorkerID", "FunctionID", "ActorClassID", "UniqueID"]
ALL = [*UNIQUE, "JobID", "TaskID", "ActorID", "ObjectID", "PlacementGroupID"]


def some(name):
    kind = getattr(ray, name)
    return kind(bytes(range(1, kind.size() + 1)))


@pytest.mark.parametrize("name", ALL)
def test_an_id_is_of_its_bytes(name) -> None:
    """It is made of bytes, which ``binary()`` and ``hex()`` give back."""
    found = some(name)

    assert found.binary() == bytes(range(1, len(found.binary()) + 1))
    assert found.hex() == found.binary().hex()
    assert len(found.binary()) == type(found).size()


@pytest.mark.parametrize("name", ALL)
def test_ids_of_the_same_bytes_are_equal(name) -> None:
    """Equal, of one hash, and unlike what is no id."""
    assert some(name) == some(name)
    assert hash(some(name)) == hash(some(name))
    assert some(name) != getattr(ray, name).nil()
    assert some(name) != some(name).binary()
    assert len({some(name), some(name)}) == 1


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("ObjectID", "UniqueID")])
def test_an_id_has_a_hex_form(name) -> None:
    """``from_hex`` is the inverse of ``hex``."""
    assert type(some(name)).from_hex(some(name).hex()) == some(name)


@pytest.mark.parametrize("name", ALL)
def test_nil_ids(name) -> None:
    """``nil()`` is of all ones, and the only one that ``is_nil``."""
    kind = getattr(ray, name)

    assert kind.nil().is_nil()
    assert kind.nil().binary() == b"\xff" * kind.size()
    assert not some(name).is_nil()


@pytest.mark.parametrize("name", [name for name in ALL if name != "ObjectID"])
def test_an_id_is_pickled(name) -> None:
    """A pickle of an id is an equal id of the same class."""
    found = pickle.loads(pickle.dumps(some(name)))

    assert found == some(name)
    assert type(found) is getattr(ray, name)


@pytest.mark.parametrize("name", UNIQUE)
def test_random_ids_differ(name) -> None:
    """``from_random()`` makes another one each time."""
    kind = getattr(ray, name)

    assert kind.from_random() != kind.from_random()
    assert len(kind.from_random().binary()) == kind.size()


@pytest.mark.parametrize("name", [name for name in ALL if name != "ObjectID"])
def test_an_ids_repr(name) -> None:
    """It is the class and the hexadecimal form."""
    assert repr(some(name)) == f"{name}({some(name).hex()})"


@pytest.mark.parametrize("name", ALL)
def test_wrong_bytes_are_refused(name) -> None:
    """Another number of bytes, or text, is an error."""
    kind = getattr(ray, name)

    with pytest.raises((TypeError, ValueError)):
        kind(b"1")
    with pytest.raises((TypeError, ValueError)):
        kind("x" * kind.size())


def test_job_ids_have_a_number() -> None:
    """``JobID.from_int`` and ``int()`` are inverse."""
    assert ray.JobID.from_int(7).int() == 7


def test_ids_of_different_classes_differ() -> None:
    """Equal bytes do not make a NodeID equal to a WorkerID."""
    assert ray.NodeID(bytes(ray.NodeID.size())) != ray.WorkerID(bytes(ray.WorkerID.size()))
