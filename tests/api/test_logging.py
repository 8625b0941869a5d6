"""``init(logging_config=...)``: what is logged, by whom, as text or JSON."""

from __future__ import annotations

import json

import pytest

import zray
from tests.api.conftest import Run

PROGRAM = """
    import logging
    zray.init(num_cpus=1, logging_config=zray.LoggingConfig(%s))

    @zray.remote(name="shown")
    def work():
        logging.getLogger("mine").info("in a \\n task", extra={"step": 3, "odd": {1, 2}})
        logging.debug("not to be seen")
        context = zray.get_runtime_context()
        return context.get_task_id(), context.get_node_id(), context.get_worker_id()

    @zray.remote
    class Actor:
        def __init__(self):
            logging.warning("made")

        def work(self):
            try:
                1 / 0
            except ZeroDivisionError:
                logging.exception("failed")
            context = zray.get_runtime_context()
            return context.get_task_id(), context.get_actor_id()

    found = zray.get(work.remote())
    actor = Actor.options(name="joe").remote()
    found += zray.get(actor.work.remote())
    logging.getLogger("driver").error("in the driver")
    print(*found, zray.get_runtime_context().get_job_id())
"""


def test_json_says_whose_each_record_is(run: Run) -> None:
    done = run(PROGRAM % 'encoding="JSON", additional_log_standard_attrs=["name", "levelno"]')
    task, node, worker, call, actor, job = done.stdout.split()
    records = [json.loads(line[line.index("{") :]) for line in done.stderr.splitlines()]
    found = {record["message"]: record for record in records}
    assert {*found} == {"in a \n task", "made", "failed", "in the driver"}
    assert {(record["job_id"], record["node_id"]) for record in records} == {(job, node)}
    assert all(record["timestamp_ns"] > 1e18 and record["lineno"] for record in records)
    first = found["in a \n task"]
    assert (first["task_id"], first["worker_id"]) == (task, worker)
    assert (first["task_name"], first["task_func_name"]) == ("shown", "work")
    assert (first["name"], first["levelno"]) == ("mine", 20)
    assert (first["step"], first["odd"]) == (3, "{1, 2}")
    failed = found["failed"]
    assert (failed["task_id"], failed["actor_id"]) == (call, actor)
    assert (failed["task_name"], failed["actor_name"]) == ("Actor.work", "joe")
    assert "ZeroDivisionError" in failed["exc_text"] and failed["filename"] == "script.py"
    assert found["made"]["actor_name"] == "joe" and found["made"]["task_name"] == "Actor.__init__"
    assert "task_id" not in found["in the driver"] and "step" not in failed


def test_text_has_the_same_behind_it(run: Run) -> None:
    done = run(PROGRAM % 'log_level="ERROR"')
    _, node, _, call, actor, job = done.stdout.split()
    lines = [line for line in done.stderr.splitlines() if " -- " in line]
    assert len(lines) == 2 and all("\tERROR script.py:" in line for line in lines)
    said = done.stderr
    assert f"job_id={job}" in said and f"node_id={node}" in said and f"actor_id={actor}" in said
    assert f"task_id={call} " in said and "actor_name=joe" in said and "made" not in said


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"encoding": "XML"}, "Invalid encoding type: XML"),
        ({"additional_log_standard_attrs": ["colour"]}, "Unknown python logging standard"),
        ({"log_level": "LOUD"}, "log_level must be"),
        ({"log_level": -1}, "log_level must be"),
    ],
)
def test_what_there_is_not_is_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        zray.LoggingConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="logging_config must be"):
        zray.init(num_cpus=1, logging_config=options)  # type: ignore[arg-type]
