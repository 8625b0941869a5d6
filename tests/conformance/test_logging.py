"""Contracts of ``LoggingConfig``: what a program and its tasks log, and how."""

from __future__ import annotations

import json

import pytest
import ray

PROGRAM = """
import logging

ray.init(
    num_cpus=1,
    include_dashboard=False,
    logging_config=ray.LoggingConfig(
        encoding="JSON", log_level="INFO", additional_log_standard_attrs=["name"]
    ),
)

@ray.remote
class Counter:
    def count(self):
        logging.getLogger("counter").info("one more", extra={"step": 7})
        logging.debug("not this")
        handler = logging.getLogger().handlers[-1]
        record = logging.makeLogRecord({"name": "counter", "msg": "by hand", "step": 7})
        handler.filter(record)
        return handler.format(record), ray.get_runtime_context().get_task_id()

@ray.remote
def work():
    handler = logging.getLogger().handlers[-1]
    record = logging.makeLogRecord({"msg": "in a task"})
    handler.filter(record)
    context = ray.get_runtime_context()
    ids = {"job_id": context.get_job_id(), "node_id": context.get_node_id()}
    ids |= {"task_id": context.get_task_id(), "worker_id": context.get_worker_id()}
    return handler.format(record), ids

line, ids = ray.get(work.remote())
print("TASK", line)
print("IDS", __import__("json").dumps(ids))
counter = Counter.options(name="joe").remote()
print("CALL", ray.get(counter.count.remote())[0])
"""


def test_json_has_the_ids_of_the_task_and_names(program) -> None:
    """Also what the program gives as extra, and the attributes that were asked for."""
    said = program(PROGRAM).stdout.splitlines()
    found = {}
    for line in said:
        kind, _, text = line.partition(" ")
        if kind in ("TASK", "IDS", "CALL"):
            found[kind] = json.loads(text)

    task, call = found["TASK"], found["CALL"]
    assert {name: task[name] for name in found["IDS"]} == found["IDS"]
    assert (task["message"], task["task_name"]) == ("in a task", "work")
    assert {"asctime", "levelname", "filename", "lineno"} <= {*task}
    assert (call["name"], call["step"], call["actor_name"]) == ("counter", 7, "joe")
    assert call["task_name"] == "Counter.count" and call["actor_id"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"encoding": "XML"}, "Invalid encoding type: XML"),
        ({"additional_log_standard_attrs": ["x"]}, "Unknown python logging standard attribute: x"),
    ],
)
def test_what_there_is_not_is_refused(options, text) -> None:
    """With what there is."""
    with pytest.raises(ValueError, match=text):
        ray.LoggingConfig(**options)


def test_the_defaults() -> None:
    """Text, from INFO on, and nothing more."""
    config = ray.LoggingConfig()

    assert (config.encoding, config.log_level) == ("TEXT", "INFO")
    assert config.additional_log_standard_attrs == []
    assert config.to_dict() == {
        "encoding": "TEXT",
        "log_level": "INFO",
        "additional_log_standard_attrs": [],
    }
