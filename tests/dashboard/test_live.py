"""What a page is told as things change: figures, what is new, logs as they grow."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

import zray


def test_figures_follow_what_happens(driven: Any, stream_of: Any) -> None:
    @zray.remote
    def held() -> None:
        time.sleep(1.5)

    @zray.remote
    def short() -> None:
        pass

    @zray.remote(max_retries=0)
    def fails() -> None:
        raise ValueError("on purpose")

    with driven.script() as client, client.stream("GET", "/api/v1/stream") as answer:
        stream = stream_of(answer)
        assert stream.next("history")["interval_s"] == 1.0
        before = stream.next("overview")
        assert before["resources"]["CPU"][1] == 2.0 and before["nodes"]["alive"] == 2
        held_refs = [held.remote() for _ in range(2)]
        told = stream.next("overview")
        while told["resources"]["CPU"][0] < 2.0:
            told = stream.next("overview")
        assert {one["name"] for one in told["node_figures"]} == {"head", "one"}
        zray.get(held_refs)
        zray.get([short.remote() for _ in range(500)])
        with pytest.raises(ValueError):
            zray.get(fails.remote())
        changed: set[str] = set()
        while told["tasks"]["finished"] < before["tasks"]["finished"] + 503 or (
            told["tasks"]["failed"] == before["tasks"]["failed"]
        ):
            told = stream.next("overview")
            changed |= {*told["changed"]}
        assert "tasks" in changed
    with driven.script() as client, client.stream("GET", "/api/v1/stream") as answer:
        samples = stream_of(answer).next("history")["samples"]
    assert len(samples) >= 3 and max(one["tasks"]["finished_per_s"] for one in samples) > 10
    assert [one["t"] for one in samples] == sorted(one["t"] for one in samples)


def test_all_viewers_are_told_what_has_happened_once(site: Any, stream_of: Any) -> None:
    with (
        site.script() as client,
        client.stream("GET", "/api/v1/stream") as one,
        client.stream("GET", "/api/v1/stream") as two,
    ):
        streams = [stream_of(one), stream_of(two)]
        assert [stream.next("overview")["up"] for stream in streams] == [True, True]
        node = site.cluster.start_node("comes", 1)
        for stream in streams:
            events: list[Any] = []
            while not any("comes" in event["message"] for event in events):
                told = stream.next("overview")
                events += told["events"]
                assert told["viewers"] == 2
            numbers = [int(event["event_id"]) for event in events]
            assert numbers == sorted(set(numbers))
        node.stop()


def test_a_log_is_read_and_followed(driven: Any, stream_of: Any) -> None:
    @zray.remote
    class Speaker:
        def say(self, text: str) -> None:
            print(text, flush=True)

    speaker = Speaker.options(name="speaker").remote()
    zray.get(speaker.say.remote("first \u00fc<b>"))
    listed = driven.get("/api/v1/logs", node="one")["items"]
    assert all(one["node"] == "one" for one in listed)

    def said() -> Any:
        found = driven.get("/api/v1/logs/speaker", tail=10)
        return found if "first \u00fc<b>" in found["text"] else None

    told = driven.until(said, 10, "it is in the log")
    assert told["subject"]["kind"] == "actor" and told["name"] in {one["name"] for one in listed}
    where = {"offset": told["offset"], "file_id": told["file_id"]}
    rest = driven.get("/api/v1/logs/speaker", **where)
    assert rest["text"] == "" and rest["eof"] is True
    path = "/api/v1/logs/speaker/follow?tail=1"
    with driven.script() as client, client.stream("GET", path) as answer:
        stream = stream_of(answer)
        assert stream.next("subject")["title"] == told["subject"]["title"]
        assert "first" in stream.next("text")["text"]
        zray.get(speaker.say.remote("second"))
        assert "second" in stream.next("text")["text"]
    stack = driven.get("/api/v1/stack/speaker")
    assert "Thread" in stack["stack"] and stack["subject"]["kind"] == "actor"


def test_a_timeline_has_what_ran(driven: Any) -> None:
    @zray.remote
    def timed() -> None:
        time.sleep(0.01)

    zray.get([timed.remote() for _ in range(5)])

    def there() -> Any:
        found = driven.get("/api/v1/timeline")
        return [one for one in found["traceEvents"] if "timed" in one["cat"]]

    assert len(driven.until(there, 10, "it is there")) == 5


def test_whoever_asks_for_a_stream_s_header_alone_gets_that(site: Any) -> None:
    with site.script() as client:
        answer = client.head("/api/v1/stream")
        assert answer.status_code == 200 and not answer.content
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert client.head("/api/v1/cluster").status_code == 200


def test_answers_are_not_kept(site: Any) -> None:
    with site.script() as client:
        for path in ("/api/v1/cluster", "/api/v1/session", "/api/v1/stack/head"):
            assert client.get(path).headers["cache-control"] == "no-store"
        first: httpx.Response = client.get("/static/index.html")
        etag = first.headers["etag"]
        again = client.get("/static/index.html", headers={"if-none-match": etag})
    assert first.headers["cache-control"] == "no-cache" and again.status_code == 304
