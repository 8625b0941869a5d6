"""What runtime environments consist of, without a cluster."""

from __future__ import annotations

from zray.core import environments
from zray.core.resources import BUILT, ENVIRONMENT
from zray.protocol import messages as m

FOLDER = m.EnvironmentPart(m.WORKING_DIR, "zray://a.zip", "a", b"o" * 20)
MODULE = m.EnvironmentPart(m.PY_MODULE, "file:///b.zip", "1-2")
PIP = m.EnvironmentPart(m.PIP, lines=["emoji", "numpy<3"], version="==26", checks=True)
UV = m.EnvironmentPart(m.UV, lines=["emoji"])


def test_a_child_replaces_the_fields_that_it_has_and_adds_its_variables() -> None:
    outer = m.Environment([("A", "1"), ("B", "2")], [FOLDER, MODULE, PIP], b"hook", "hook", 60.0)
    own = m.EnvironmentPart(m.WORKING_DIR, "file:///own.zip")
    inner = m.Environment([("B", "3")], [own, UV], timeout_s=9.0)
    found = environments.merged(outer, inner)
    assert found is not None
    assert found.env_vars == [("A", "1"), ("B", "3")]
    assert found.parts == [own, MODULE, UV]
    assert (found.hook, found.hook_name, found.timeout_s) == (b"hook", "hook", 9.0)


def test_without_one_of_them_it_is_the_other() -> None:
    one = m.Environment([("A", "1")])
    assert environments.merged(one, None) is one
    assert environments.merged(None, one) is one
    assert environments.merged(None, None) is None


def test_a_name_is_equal_for_what_is_built_alike_whoever_has_sent_it() -> None:
    other = m.EnvironmentPart(m.WORKING_DIR, "zray://a.zip", "a", b"p" * 20)
    names = {environments.name_of(m.Environment(parts=[part])) for part in (FOLDER, other)}
    assert len(names) == 1 and names.pop().startswith(BUILT)
    assert environments.part_id(FOLDER) == environments.part_id(other)
    plain = environments.name_of(m.Environment([("A", "1")]))
    assert plain.startswith(ENVIRONMENT) and not plain.startswith(BUILT)
    hooked = environments.name_of(m.Environment([("A", "1")], hook_name="a.b"))
    assert hooked != plain


def test_it_is_shown_as_it_was_said_but_for_folders() -> None:
    made = m.Environment([("A", "1")], [FOLDER, MODULE, PIP], b"x", "hook")
    assert environments.described(made) == {
        "env_vars": {"A": "1"},
        "working_dir": "zray://a.zip",
        "py_modules": ["file:///b.zip"],
        "pip": {"packages": ["emoji", "numpy<3"], "pip_check": True, "pip_version": "==26"},
        "worker_process_setup_hook": "hook",
    }
    assert environments.described(None) == {}
    assert environments.in_words(PIP) == "pip install emoji numpy<3"


def test_the_objects_that_it_is_made_of() -> None:
    assert environments.packages_of(m.Environment(parts=[FOLDER, MODULE])) == [b"o" * 20]
    assert environments.packages_of(None) == []
