"""Figures as Prometheus reads them. Pure: an answer in, text out.

What programs have recorded comes under their own names, as ``zray_user_...`` where the name would
be one of zray's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from zray.metrics.catalog import COUNTER, GAUGE, METRICS
from zray.protocol import messages as m

OURS = "zray_"
USER = "zray_user_"
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
KINDS = {m.COUNTER: "counter", m.GAUGE: "gauge", m.HISTOGRAM: "histogram"}
LABELS = ("node", "job", "worker")  # that a program's series have beside their own
DRIVER = ""  # its node

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class _Found:
    """As prometheus_client sees a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposed(answers: Sequence[m.Scraped], accept: str = "") -> tuple[bytes, str]:
    """The text of all answers together, and its content type, as the reader ``accept``s it."""
    families = [*_own(answers), *_of_programs(answers)]
    encoder, content_type = choose_encoder(accept)
    return encoder(_Found(families)), content_type


def _own(answers: Sequence[m.Scraped]) -> Iterator[Metric]:
    found: dict[str, Metric] = {}
    for answer in answers:
        for figure in answer.figures:
            metric = METRICS.get(figure.name)
            if metric is None or len(metric.labels) != len(figure.labels):
                continue  # of another version
            family = found.get(figure.name)
            if family is None:
                family = found[figure.name] = _family(
                    metric.name, metric.kind, metric.help, metric.labels
                )
            _add(family, figure.labels, figure.value, figure.counts, metric.buckets)
    left_out = METRICS["zray_user_series_left_out"]
    family = _family(left_out.name, left_out.kind, left_out.help, left_out.labels)
    for answer in answers:
        _add(family, [answer.node], answer.left_out, [], ())
    yield from found.values()
    if answers:
        yield family


def _of_programs(answers: Sequence[m.Scraped]) -> Iterator[Metric]:
    """One family of a name: of programs that do not agree about it, that of the first."""
    found: dict[str, tuple[int, Metric]] = {}
    for answer in answers:
        for metric in answer.programs:
            bare = metric.name.removesuffix("_total")
            if not NAME.match(bare) or not all(map(NAME.match, metric.keys)):
                continue  # no program of ours
            name = USER + metric.name if metric.name.startswith(OURS) else metric.name
            keys = [*(f"exported_{k}" if k in LABELS else k for k in metric.keys), *LABELS]
            kind, family = found.setdefault(
                name.removesuffix("_total"),
                (metric.kind, _family(name, KINDS[metric.kind], metric.description, keys)),
            )
            for one in metric.series if kind == metric.kind else ():
                values = [*one.tags, answer.node, one.job_id.hex(), one.worker_id.hex()]
                _put(family, dict(zip(keys, values, strict=True)), one, metric.boundaries)
    yield from (family for _, family in found.values())


def _family(name: str, kind: str, text: str, labels: Sequence[str]) -> Metric:
    if kind == COUNTER:
        return CounterMetricFamily(name, text, labels=labels)
    if kind == GAUGE:
        return GaugeMetricFamily(name, text, labels=labels)
    return HistogramMetricFamily(name, text, labels=labels)


def _add(
    family: Metric,
    labels: Sequence[str],
    value: float,
    counts: Sequence[int],
    bounds: Sequence[float],
) -> None:
    if isinstance(family, HistogramMetricFamily):
        if len(counts) == len(bounds) + 1:
            family.add_metric(labels, _buckets(counts, bounds), value)
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        family.add_metric(labels, value)


def _put(
    family: Metric, labels: dict[str, str], one: m.UserSeries, bounds: Sequence[float]
) -> None:
    """Of programs: labels that are empty are left out, and may differ from one to the next."""
    labels = {key: value for key, value in labels.items() if value}
    if isinstance(family, HistogramMetricFamily):
        if len(one.counts) == len(bounds) + 1:
            for bound, count in _buckets(one.counts, bounds):
                family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
            family.add_sample(f"{family.name}_count", labels, sum(one.counts))
            family.add_sample(f"{family.name}_sum", labels, one.value)
    else:
        suffix = "_total" if isinstance(family, CounterMetricFamily) else ""
        family.add_sample(family.name + suffix, labels, one.value)


def _buckets(counts: Sequence[int], bounds: Sequence[float]) -> list[tuple[str, int]]:
    names = map(floatToGoString, (*bounds, float("inf")))
    return [*zip(names, accumulate(counts), strict=True)]
