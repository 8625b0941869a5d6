"""Metrics of your own, in drivers, tasks and actors: Counter, Gauge and Histogram, as Ray has them.

They are seen at the dashboard's ``/metrics``, see docs/metrics.md. Semantics: ray.util.metrics of
Ray 2.x.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from zray import limits
from zray.protocol.metric_messages import COUNTER, GAUGE, HISTOGRAM
from zray.util import metric_registry
from zray.util.metric_registry import Definition

__all__ = ["Counter", "Gauge", "Histogram"]

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
KEY = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")

Tags = Mapping[str, str]


class Metric:
    """What all kinds have. Two objects of one name and definition in a process are the same metric.

    Args:
        name: letters, digits, ``_`` and ``:``.
        description: for people, as its HELP.
        tag_keys: the names of its tags; each that is recorded has a value for every one.

    Raises:
        ValueError: the name is empty or not allowed, or this process has a metric of that name that
            is another. TypeError: ``tag_keys`` is no tuple of strings.
    """

    _kind = 0

    def __init__(
        self,
        name: str,
        description: str = "",
        tag_keys: tuple[str, ...] | None = None,
        *,
        _boundaries: tuple[float, ...] = (),
    ) -> None:
        if not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        if not NAME.match(name) or len(name) > limits.LABEL_MAX:
            raise ValueError(
                f"metric name {name!r} is not allowed: Prometheus takes letters, digits, '_' and "
                f"':', no digit first, {limits.LABEL_MAX} characters at most"
            )
        keys = tag_keys if tag_keys is not None else ()
        if not isinstance(keys, tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(keys)}")
        for key in keys:
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
            if not KEY.match(key) or key.startswith("__") or key == "le":
                raise ValueError(f"tag key {key!r} is not allowed as a label of Prometheus")
        if len(keys) > limits.LABELS_MAX or len({*keys}) < len(keys):
            raise ValueError(f"tag_keys has {len(keys)} keys; {limits.LABELS_MAX} different ones")
        self._name = name
        self._description = str(description)[: limits.BRIEF_TEXT_MAX]
        self._tag_keys = keys
        self._default_tags: dict[str, str] = {}
        self._series = metric_registry.metric(
            Definition(name, self._kind, self._description, keys, _boundaries)
        )

    def set_default_tags(self, default_tags: Tags) -> Metric:
        """Values for tags that are not given when something is recorded; returns the metric.

        Raises:
            ValueError: there is no such tag. TypeError: a value is no string.
        """
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Its name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _values(self, tags: Tags | None) -> tuple[str, ...]:
        """The values of all tags, in order.

        Raises:
            ValueError: one has none, or is not a tag of it. TypeError: one is no string.
        """
        given = {**self._default_tags, **tags} if tags else self._default_tags
        if len(given) != len(self._tag_keys) or tags:
            missing = [key for key in self._tag_keys if key not in given]
            if missing:
                raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
            for key, value in given.items():
                if key not in self._tag_keys:
                    raise ValueError(f"Unrecognized tag key {key}.")
                if not isinstance(value, str):
                    raise TypeError(f"Tag values must be str, got {type(value)}.")
                if len(value) > limits.LABEL_MAX:
                    raise ValueError(
                        f"the value of tag {key} has {len(value)} characters; "
                        f"{limits.LABEL_MAX} are allowed"
                    )
        return tuple([given[key] for key in self._tag_keys])

    def __reduce__(self) -> Any:
        return _made, (type(self), self._arguments(), self._default_tags)

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self._tag_keys

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"


class Counter(Metric):
    """A number that only rises: requests, errors, bytes. Prometheus has it as NAME_total."""

    _kind = COUNTER

    def inc(self, value: float = 1.0, tags: Tags | None = None) -> None:
        """Add to it.

        Raises:
            TypeError: ``value`` is no number. ValueError: it is not above 0, or tags are wrong.
        """
        _check_number(value)
        if not value > 0:
            raise ValueError(f"value must be >0, got {value}")
        self._series.add(self._values(tags), float(value))


class Gauge(Metric):
    """A number as it is now, of each process: a queue's length, a temperature."""

    _kind = GAUGE

    def set(self, value: float, tags: Tags | None = None) -> None:
        """It is this now.

        Raises:
            TypeError: ``value`` is no number. ValueError: tags are wrong.
        """
        _check_number(value)
        self._series.set(self._values(tags), float(value))


class Histogram(Metric):
    """How many values were in which range: latencies, sizes.

    Args:
        boundaries: upper bounds of the ranges, rising and above 0; one without a bound follows.

    Raises:
        ValueError: as Metric; there are no boundaries, or they do not rise from above 0.
    """

    _kind = HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        if not boundaries:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class. e.g., "
                'Histogram("name", boundaries=[1.0, 2.0])'
            )
        for place, bound in enumerate(boundaries):
            if not bound > 0:
                raise ValueError(
                    f"Invalid `boundaries` argument at index {place}, {boundaries}. "
                    "Use positive values for the arguments."
                )
        bounds = tuple(map(float, boundaries))
        if list(bounds) != sorted({*bounds}) or len(bounds) > limits.BUCKETS_MAX:
            raise ValueError(
                f"boundaries have to rise, and may be {limits.BUCKETS_MAX} at most: {boundaries}"
            )
        self.boundaries = list(bounds)
        super().__init__(name, description, tag_keys, _boundaries=bounds)

    def observe(self, value: float, tags: Tags | None = None) -> None:
        """There was one such value.

        Raises:
            TypeError: ``value`` is no number. ValueError: tags are wrong.
        """
        _check_number(value)
        self._series.observe(self._values(tags), float(value))

    @property
    def info(self) -> dict[str, Any]:
        """As ``Metric.info``, and its boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self.boundaries, self._tag_keys


def _made(kind: type[Metric], arguments: tuple[Any, ...], default_tags: dict[str, str]) -> Metric:
    return kind(*arguments).set_default_tags(default_tags)


def _check_number(value: object) -> None:
    if not isinstance(value, int | float):
        raise TypeError(f"value must be int or float, got {type(value)}.")
