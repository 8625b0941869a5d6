"""What a program inherits of the job whose command has started it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zray.api import submitted_job
from zray.api.driver_account import job_info


@pytest.fixture
def of_job(monkeypatch: pytest.MonkeyPatch) -> Any:
    def inherit(environment: Any) -> None:
        monkeypatch.setenv("ZRAY_JOB_CONFIG_JSON", json.dumps({"runtime_env": environment}))

    return inherit


def test_without_a_job_there_is_nothing() -> None:
    assert submitted_job.runtime_env(None) is None and submitted_job.submission_id() == ""
    own = {"env_vars": {"A": "1"}}
    assert submitted_job.runtime_env(own) is own


def test_both_add_up(of_job: Any) -> None:
    of_job({"working_dir": "zray://x.zip", "env_vars": {"A": "1"}})
    assert submitted_job.runtime_env({"pip": ["x"], "env_vars": {"B": "2"}}) == {
        "working_dir": "zray://x.zip",
        "pip": ["x"],
        "env_vars": {"A": "1", "B": "2"},
    }
    assert submitted_job.runtime_env(None) == {
        "working_dir": "zray://x.zip",
        "env_vars": {"A": "1"},
    }


@pytest.mark.parametrize(
    "own", [{"working_dir": "."}, {"env_vars": {"A": "2"}}, {"env_vars": {"A": "1"}}]
)
def test_what_both_have_is_an_error(of_job: Any, monkeypatch: Any, own: Any) -> None:
    of_job({"working_dir": "zray://x.zip", "env_vars": {"A": "1"}})
    with pytest.raises(ValueError, match="ZRAY_OVERRIDE_JOB_RUNTIME_ENV"):
        submitted_job.runtime_env(own)
    monkeypatch.setenv("ZRAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    found = submitted_job.runtime_env(own)
    assert found is not None and all(found[name] == value for name, value in own.items())


@pytest.mark.parametrize("text", ["", "no json", "[]", "5", '{"runtime_env": 5}', "{}"])
def test_a_variable_that_is_something_else_is_nothing(monkeypatch: Any, text: str) -> None:
    monkeypatch.setenv("ZRAY_JOB_CONFIG_JSON", text)
    assert submitted_job.runtime_env(None) is None


@pytest.mark.parametrize(("given", "found"), [("x", "x"), ("x" * 129, ""), ("\u00e9", "")])
def test_a_driver_says_of_which_job_it_is(monkeypatch: Any, given: str, found: str) -> None:
    monkeypatch.setenv("ZRAY_JOB_SUBMISSION_ID", given)
    assert job_info(False, "n", 0.0, None).submission_id == found
