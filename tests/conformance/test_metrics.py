"""Contracts of metrics: what Counter, Gauge and Histogram take, and what they refuse."""

from __future__ import annotations

import pickle

import pytest
from ray.util.metrics import Counter, Gauge, Histogram


def test_a_metric_without_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="Empty name is not allowed"):
        Counter("")


def test_a_name_that_prometheus_does_not_take_warns() -> None:
    with pytest.warns(UserWarning, match="Invalid metric name"):
        Counter("a b").inc()


@pytest.mark.parametrize("keys", [["x"], "abc", (1,)])
def test_tag_keys_are_a_tuple_of_strings(keys: object) -> None:
    with pytest.raises(TypeError):
        Counter("keys", tag_keys=keys)


def test_info_has_what_it_was_made_with() -> None:
    assert Counter("about", description="d", tag_keys=("a", "b")).info == {
        "name": "about",
        "description": "d",
        "tag_keys": ("a", "b"),
        "default_tags": {},
    }
    assert Histogram("spread", boundaries=[1, 2], tag_keys=("a",)).info["boundaries"] == [1, 2]


def test_default_tags_are_of_its_keys_and_are_strings() -> None:
    counter = Counter("defaults", tag_keys=("a", "b"))
    with pytest.raises(ValueError, match="Unrecognized tag key z"):
        counter.set_default_tags({"z": "1"})
    with pytest.raises(TypeError, match="Tag values must be str"):
        counter.set_default_tags({"a": 1})
    assert counter.set_default_tags({"a": "1"}) is counter
    counter.inc(tags={"b": "2"})


def test_each_tag_needs_a_value_that_is_a_string() -> None:
    counter = Counter("tagged", tag_keys=("a", "b"))
    with pytest.raises(ValueError, match="Missing value for tag key"):
        counter.inc(tags={"a": "1"})
    with pytest.raises(TypeError, match="Tag values must be str"):
        counter.inc(tags={"a": 1, "b": "2"})


@pytest.mark.parametrize("value", [0, -1])
def test_a_counter_only_rises(value: float) -> None:
    with pytest.raises(ValueError, match="value must be >0"):
        Counter("rises").inc(value)


def test_what_is_recorded_is_a_number() -> None:
    for record in (Counter("n1").inc, Gauge("n2").set, Histogram("n3", boundaries=[1]).observe):
        with pytest.raises(TypeError, match="value must be int or float"):
            record("x")
    Gauge("n2").set(None)


@pytest.mark.parametrize("boundaries", [None, [], [0, 1], [-1]])
def test_a_histogram_needs_boundaries_above_0(boundaries: object) -> None:
    with pytest.raises(ValueError, match="boundaries"):
        Histogram("bounds", boundaries=boundaries)


def test_metrics_travel() -> None:
    for metric in (Counter("t1", tag_keys=("a",)), Histogram("t2", boundaries=[1])):
        assert pickle.loads(pickle.dumps(metric)).info == metric.info
