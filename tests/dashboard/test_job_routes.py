"""Submitted jobs over HTTP, under Ray's paths: what they take and tell, and who may change them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.real_cluster import until
from zray import limits
from zray.errors import JobExistsError, JobNotFoundError, JobSubmissionError

ANSWER_S = 20.0


def submit(client: httpx.Client, entrypoint: str, **fields: Any) -> str:
    answer = client.post("/api/jobs/", json={"entrypoint": entrypoint, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, str] = answer.json()
    assert found["job_id"] == found["submission_id"]
    return found["submission_id"]


def ended(client: httpx.Client, job: str) -> dict[str, Any]:
    """What the job is when it has ended."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/api/jobs/{job}").json()
        return found if found["end_time"] else None

    return until(look, ANSWER_S, f"job {job} has ended")


def test_a_job_from_submission_to_deletion(site: Any) -> None:
    with site.script() as client:
        job = submit(client, "echo hello; exit 3", submission_id="whole", metadata={"a": "b"})
        found = ended(client, job)
        assert (found["status"], found["driver_exit_code"]) == ("FAILED", 3)
        assert (found["type"], found["metadata"]) == ("SUBMISSION", {"a": "b"})
        assert client.get(f"/api/jobs/{job}/logs").json() == {"logs": "hello\n"}
        assert job in [one["submission_id"] for one in client.get("/api/jobs/").json()]
        assert client.post(f"/api/jobs/{job}/stop").json() == {"stopped": False}
        assert client.delete(f"/api/jobs/{job}").json() == {"deleted": True}
        assert client.get(f"/api/jobs/{job}").status_code == 404


def test_a_job_that_runs_is_stopped(site: Any) -> None:
    with site.script() as client:
        job = submit(client, "echo began; sleep 60")
        until(
            lambda: client.get(f"/api/jobs/{job}/logs").json()["logs"] == "began\n",
            ANSWER_S,
            "it has begun",
        )
        refused = client.delete(f"/api/jobs/{job}")
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == JobSubmissionError.code
        assert client.post(f"/api/jobs/{job}/stop", json={}).json() == {"stopped": True}
        assert ended(client, job)["status"] == "STOPPED"


def test_its_log_is_told_as_it_grows(site: Any, stream_of: Callable[[httpx.Response], Any]) -> None:
    with site.script() as client:
        job = submit(client, "echo one; sleep 0.5; echo two")
        with client.stream("GET", f"/api/jobs/{job}/logs/tail") as answer:
            stream = stream_of(answer)
            assert stream.next("text") == {"text": "one\n"}
            assert stream.next("text") == {"text": "two\n"}
            assert stream.next("end") == {"status": "SUCCEEDED"}


def test_an_id_that_is_taken_is_refused(site: Any) -> None:
    with site.script() as client:
        submit(client, "true", submission_id="taken")
        answer = client.post("/api/jobs/", json={"entrypoint": "true", "submission_id": "taken"})
    assert answer.status_code == 409 and answer.json()["error"]["code"] == JobExistsError.code


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"entrypoint": ""},
        {"entrypoint": 5},
        {"entrypoint": "true", "more": 1},
        {"entrypoint": "true", "metadata": {"a": 1}},
        {"entrypoint": "true", "metadata": []},
        {"entrypoint": "true", "runtime_env": {"nothing": 1}},
        {"entrypoint": "true", "submission_id": "a/b"},
        {"entrypoint": "true", "submission_id": "x" * 129},
        {"entrypoint": "true", "entrypoint_num_cpus": -1},
        {"entrypoint": "true", "entrypoint_num_cpus": "1"},
        {"entrypoint": "true", "entrypoint_resources": {"a": None}},
        {"entrypoint": "x" * (limits.JOB_ENTRYPOINT_MAX + 1)},
        {"entrypoint": "\ud800"},
    ],
)
def test_what_cannot_be_is_refused(site: Any, body: dict[str, Any]) -> None:
    with site.script() as client:
        headers = {"content-type": "application/json"}
        answer = client.post("/api/jobs/", content=json.dumps(body), headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_fields_that_are_null_are_as_if_they_were_not_there(site: Any) -> None:
    with site.script() as client:
        job = submit(client, "true", submission_id=None, metadata=None, runtime_env=None)
        assert ended(client, job)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", "/api/jobs/nothing"), ("DELETE", "/api/jobs/nothing")),
        *(("POST", "/api/jobs/nothing/stop"), ("GET", "/api/jobs/nothing/logs")),
        ("GET", "/api/jobs/nothing/logs/tail"),
    ],
)
def test_what_there_is_not(site: Any, method: str, path: str) -> None:
    with site.script() as client:
        answer = client.request(method, path)
    assert answer.status_code == 404 and answer.json()["error"]["code"] == JobNotFoundError.code


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/jobs/"), ("POST", "/api/jobs/x/stop"), ("DELETE", "/api/jobs/x")],
)
def test_a_browser_changes_only_with_its_sessions_word(site: Any, method: str, path: str) -> None:
    origin = {"origin": site.url}
    body = {"json": {"entrypoint": "true"}} if method == "POST" else {}
    with site.stranger() as client:
        assert client.request(method, path, **body).status_code == 401
    with site.browser() as client:
        word = client.get("/api/v1/session").json()["csrf"]
        for headers in ({}, origin, {"x-zray-csrf": word}, {**origin, "x-zray-csrf": "x"}):
            assert client.request(method, path, headers=headers, **body).status_code == 403
        headers = {**origin, "x-zray-csrf": word}
        answer = client.request(method, path, headers=headers, **body)
        assert answer.status_code in (200, 404)


def test_a_body_that_is_no_json_is_refused(site: Any) -> None:
    with site.script() as client:
        for path in ("/api/jobs/", "/api/jobs/x/stop"):
            assert client.post(path, content=b"entrypoint=true").status_code == 415
            form = {"content-type": "application/x-www-form-urlencoded"}
            assert client.post(path, headers=form).status_code == 415
