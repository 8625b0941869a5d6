"""Contracts of names: what can be imported from where."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import ray

LINES = (Path(__file__).parent / "ray_names.txt").read_text().splitlines()[1:]
NAMES = {module: names.split() for module, _, names in (line.partition(": ") for line in LINES)}


@pytest.mark.parametrize("module", NAMES)
def test_public_names_are_there(module) -> None:
    """Each of the module's public names can be imported."""
    found = importlib.import_module(module)

    assert not [name for name in NAMES[module] if not hasattr(found, name)]


@pytest.mark.parametrize("module", ["ray", "ray.util", "ray.exceptions", "ray.actor"])
def test_other_names_are_not_there(module) -> None:
    """A name that Ray does not have is an ImportError, and an AttributeError."""
    with pytest.raises(ImportError):
        exec(f"from {module} import no_such_name", {})
    with pytest.raises(AttributeError):
        importlib.import_module(module).no_such_name  # noqa: B018


@pytest.mark.parametrize("module", ["ray.no_such_module", "ray.util.no_such_module"])
def test_other_modules_are_not_there(module) -> None:
    """A module that Ray does not have is a ModuleNotFoundError."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(module)


@pytest.mark.parametrize("name", ["actor", "exceptions", "util", "cloudpickle"])
def test_modules_that_need_no_import_of_their_own(name) -> None:
    """``import ray`` is enough for them."""
    assert getattr(ray, name) is importlib.import_module(f"ray.{name}")


def test_the_package_has_a_file() -> None:
    """``ray.__file__`` is a file in the folder of the package."""
    assert Path(ray.__file__).is_file()


def test_the_version() -> None:
    """``ray.__version__`` is of three numbers."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", ray.__version__)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("ray.exceptions", "RayTaskError"),
        ("ray.actor", "ActorHandle"),
        ("ray.runtime_context", "RuntimeContext"),
    ],
)
def test_classes_for_isinstance(module, name) -> None:
    """They are classes."""
    assert isinstance(getattr(importlib.import_module(module), name), type)


def test_a_remote_function_is_of_its_class() -> None:
    """What the decorator makes is a RemoteFunction or an ActorClass."""
    from ray.actor import ActorClass
    from ray.remote_function import RemoteFunction

    @ray.remote
    def f():
        pass

    @ray.remote
    class C:
        pass

    assert isinstance(f, RemoteFunction)
    assert isinstance(C, ActorClass)
