"""Metrics of your own, in drivers, tasks and actors: Counter, Gauge and Histogram, as Ray has them.

They are seen at the dashboard's ``/metrics``, see docs/metrics.md. Semantics: ray.util.metrics of
Ray 2.60; a metric that cannot be told never breaks a program, but warns.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

from zray import limits
from zray.protocol.metric_messages import COUNTER, GAUGE, HISTOGRAM
from zray.util import metric_registry
from zray.util.metric_registry import Definition

__all__ = ["Counter", "Gauge", "Histogram"]

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
NO_LABEL = re.compile(r"[^a-zA-Z0-9_]|^(?=[0-9]|__|le\Z)")  # where Prometheus wants something else

Tags = Mapping[str, str]


class Metric:
    """What all kinds have. Two objects of one name in a process are the same metric.

    Args:
        name: letters, digits, ``_`` and ``:``. With another one, or one that this process has for
            another metric, a UserWarning says that nothing is recorded.
        description: for people, as its HELP.
        tag_keys: the names of its tags; what is recorded has a value for each.

    Raises:
        ValueError: the name is empty. TypeError: it is no string, or ``tag_keys`` no tuple of such.
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
        if not isinstance(name, str):
            raise TypeError(f"name should be a str, got: {type(name)}")
        if not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        keys = tag_keys if tag_keys is not None else ()
        if not isinstance(keys, tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(keys)}")
        for key in keys:
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
        self._name = name
        self._description = str(description)
        self._tag_keys = keys
        self._wanted = tuple(dict.fromkeys(keys))
        self._default_tags: dict[str, str] = {}
        self._warned = False
        self._series = self._find(_boundaries)

    def _find(self, boundaries: tuple[float, ...]) -> metric_registry.Series | None:
        """Its numbers; None: nobody is told of them."""
        name, wanted = self._name, self._wanted
        labels = tuple(NO_LABEL.sub("_", key)[: limits.LABEL_MAX] for key in wanted)
        trouble = ""
        if not NAME.match(name.removesuffix("_total")) or len(name) > limits.LABEL_MAX:
            trouble = (
                f"Invalid metric name: {name[:100]!r}: Prometheus takes letters, digits, '_' and "
                f"':', no digit first, and zray {limits.LABEL_MAX} characters at most"
            )
        elif len(wanted) > limits.LABELS_MAX or len({*labels}) < len(wanted):
            trouble = f"metric {name} has too many tag keys ({limits.LABELS_MAX}), or alike ones"
        elif len(boundaries) > limits.BUCKETS_MAX:
            trouble = f"histogram {name} has more than {limits.BUCKETS_MAX} boundaries"
        else:
            text = _sendable(self._description, limits.BRIEF_TEXT_MAX)
            found = metric_registry.metric(Definition(name, self._kind, text, labels, boundaries))
            if found is not None:
                return found
            trouble = f"this process has another metric {name}: of other kind, keys or boundaries"
        warnings.warn(f"{trouble}. What it records is discarded.", stacklevel=4)
        return None

    def set_default_tags(self, default_tags: Tags) -> Self:
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
            ValueError: one has none. TypeError: one is no string.
        """
        given = self._default_tags
        if tags:
            for value in tags.values():
                if not isinstance(value, str):
                    raise TypeError(f"Tag values must be str, got {type(value)}.")
            given = {**given, **tags}
        try:
            values = tuple([_sendable(given[key], limits.LABEL_MAX) for key in self._wanted])
        except KeyError:
            missing = [key for key in self._wanted if key not in given]
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.") from None
        if len(given) > len(values) and not self._warned:
            self._warned = True
            unknown = ", ".join(key for key in given if key not in self._wanted)
            text = f"metric {self._name} has no tag {unknown} in its tag_keys: it is left out"
            warnings.warn(text, stacklevel=3)
        return values

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
        values = self._values(tags)
        if self._series is not None:
            self._series.add(values, float(value))


class Gauge(Metric):
    """A number as it is now, of each process: a queue's length, a temperature."""

    _kind = GAUGE

    def set(self, value: float | None, tags: Tags | None = None) -> None:
        """It is this now; None changes nothing.

        Raises:
            TypeError: ``value`` is no number. ValueError: tags are wrong.
        """
        if value is None:
            return
        _check_number(value)
        values = self._values(tags)
        if self._series is not None:
            self._series.set(values, float(value))


class Histogram(Metric):
    """How many values were in which range: latencies, sizes.

    Args:
        boundaries: upper bounds of the ranges, above 0; one without a bound follows.

    Raises:
        ValueError: as Metric; there are no boundaries, or one is not above 0.
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
        self.boundaries = boundaries
        bounds = sorted({float(bound) for bound in boundaries if bound != float("inf")})
        super().__init__(name, description, tag_keys, _boundaries=tuple(bounds))

    def observe(self, value: float, tags: Tags | None = None) -> None:
        """There was one such value.

        Raises:
            TypeError: ``value`` is no number. ValueError: tags are wrong.
        """
        _check_number(value)
        values = self._values(tags)
        if self._series is not None:
            self._series.observe(values, float(value))

    @property
    def info(self) -> dict[str, Any]:
        """As ``Metric.info``, and its boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self.boundaries, self._tag_keys


def _made(kind: type[Metric], arguments: tuple[Any, ...], default_tags: dict[str, str]) -> Metric:
    return kind(*arguments).set_default_tags(default_tags)


def _sendable(text: str, characters_max: int) -> str:
    """As much of it; lone surrogates, which UTF-8 cannot carry, become escapes."""
    text = text[:characters_max]
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()[:characters_max]


def _check_number(value: object) -> None:
    if not isinstance(value, int | float):
        raise TypeError(f"value must be int or float, got {type(value)}.")
