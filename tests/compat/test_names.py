"""Which of Ray's names there are in zray's place of it, and what the others say."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from zray._version import RAY_VERSION
from zray.compat import finder, names
from zray.compat.absent import NotInZrayError
from zray.runtime import serialization


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """zray is in the place of Ray, in this test alone."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if is_rays(name)}
    was_there, prelude = finder._FINDER in sys.meta_path, serialization._prelude
    finder.install()
    yield
    for name in [name for name in sys.modules if is_rays(name)]:
        del sys.modules[name]
    sys.modules.update(before)
    if not was_there:  # what modules have added that were loaded meanwhile stays
        sys.meta_path.remove(finder._FINDER)
    serialization._prelude = prelude


def is_rays(name: str) -> bool:
    return name == "ray" or name.startswith("ray.")


@pytest.mark.parametrize("module", sorted({*names.MODULES, *names.ALIASES}))
def test_every_name_of_the_table_is_there(module: str) -> None:
    made = importlib.import_module(module)

    for name in names.MODULES.get(module, ()):
        getattr(made, name)
        assert name in dir(made)


def test_a_name_is_zrays_own_object() -> None:
    import ray
    import ray.exceptions

    import zray

    assert ray.get is zray.get
    assert ray.exceptions.GetTimeoutError is zray.errors.GetTimeoutError
    assert ray.__version__ == RAY_VERSION


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        ("ray.tune", "run", "Optuna"),
        ("ray.data", "read_csv", "pandas"),
        ("ray.util.collective", "allreduce_multigpu", "torch.distributed"),
        ("ray", "java_function", "task_by_name"),
    ],
)
def test_what_is_out_of_scope_imports_and_raises_on_use(
    module: str, name: str, instead: str
) -> None:
    found = getattr(importlib.import_module(module), name)

    with pytest.raises(NotInZrayError, match=rf"{module}\.{name} is not part of zray.*{instead}"):
        found(1)
    with pytest.raises(NotInZrayError, match=instead):
        found.attribute  # noqa: B018
    with pytest.raises(NotInZrayError):
        pickle.loads(pickle.dumps(found))()


def test_code_that_names_what_is_out_of_scope_loads() -> None:
    from ray import data, tune
    from ray.rllib.algorithms import ppo

    class Trainable(tune.Trainable):
        def step(self, batch: data.Dataset | None = None) -> ppo.PPO[int]: ...

    with pytest.raises(NotInZrayError, match=r"ray\.tune\.Trainable"):
        Trainable()


@pytest.mark.parametrize("name", ["nonsense", "task", "util.nonsense", "exceptions.Nonsense"])
def test_what_ray_does_not_have_is_unknown(name: str) -> None:
    module, _, name = f"ray.{name}".rpartition(".")

    with pytest.raises(ImportError):
        exec(f"from {module} import {name}", {})
    with pytest.raises(AttributeError):
        getattr(importlib.import_module(module), name)


def test_a_module_is_there_without_an_import_of_its_own(installed: Any) -> None:
    import ray

    assert ray.util.state.list_tasks
    assert ray.actor.ActorClass
    assert not hasattr(ray.util, "nonsense")


def test_a_function_is_found_where_a_module_is_called_so() -> None:
    importlib.import_module("ray.util.placement_group")
    import ray.util

    from zray.util import placement_group

    assert ray.util.placement_group is placement_group and callable(placement_group)
