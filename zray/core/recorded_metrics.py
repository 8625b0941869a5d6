"""What programs have recorded in processes: kept while these live, and added up when they end.

Owns the memory for it, which is bounded. Counters and histograms of a job's processes are one
series, which never falls; a gauge is one for each process, and goes with it.
"""

from __future__ import annotations

from zray import limits
from zray.protocol import messages as m

Values = tuple[float, list[int]]  # a value, and a histogram's counts
MetricKey = tuple[bytes, str]  # job, name


class _Metric:
    """Of one job. ``told``: by process and tags; ``ended``: by tags, of processes that are gone."""

    __slots__ = ("definition", "ended", "told")

    def __init__(self, definition: m.UserMetric) -> None:
        self.definition = definition
        self.told: dict[bytes, dict[tuple[str, ...], Values]] = {}
        self.ended: dict[tuple[str, ...], Values] = {}


class RecordedMetrics:
    """Of a node's workers, or of a head's drivers.

    Attributes:
        left_out: how many series could not be kept.
    """

    def __init__(self) -> None:
        self._metrics: dict[MetricKey, _Metric] = {}
        self._of: dict[bytes, dict[MetricKey, None]] = {}  # by process
        self._lost: dict[bytes, int] = {}  # of how many a process has lost count itself
        self._over: dict[bytes, float] = {}  # jobs that have ended, and when they are forgotten
        self._series = 0
        self._characters = 0
        self.left_out = 0

    def recorded(self, process_id: bytes, job_id: bytes, message: m.Recorded, now: float) -> None:
        """A process tells series as they are now."""
        self._lost[process_id] = message.left_out
        if self._series >= limits.SERIES_KEPT_MAX:
            self._forget(now)
        for told in message.programs:
            self._take(process_id, (job_id, told.name), told)

    def _take(self, process_id: bytes, key: MetricKey, told: m.UserMetric) -> None:
        metric = self._metrics.get(key)
        if metric is not None and not _fits(metric.definition, told):
            self.left_out += len(told.series)
            return
        mine = metric.told.get(process_id, {}) if metric is not None else {}
        buckets = len(told.boundaries) + 1 if told.kind == m.HISTOGRAM else 0
        for one in told.series:
            tags = tuple(one.tags)
            if len(tags) != len(told.keys) or len(one.counts) != buckets:
                continue  # no program of ours
            if tags not in mine:
                weight = _size(tags) if metric is not None else _size(tags) + _weight(told)
                if not self._room(weight):
                    continue
            if metric is None:  # not before something of it is kept
                metric = self._metrics[key] = _Metric(_defined(told))
            mine[tags] = (one.value, one.counts)
        if metric is not None and mine:
            metric.told[process_id] = mine
            self._of.setdefault(process_id, {})[key] = None

    def _room(self, size: int) -> bool:
        """Whether there is room for one more series; it is taken."""
        full = self._series >= limits.SERIES_KEPT_MAX
        if full or self._characters + size > limits.SERIES_CHARACTERS_MAX:
            self.left_out += 1
            return False
        self._series += 1
        self._characters += size
        return True

    def _vacate(self, tags: tuple[str, ...]) -> None:
        self._series -= 1
        self._characters -= _size(tags)

    def _drop(self, key: MetricKey) -> None:
        """Nothing of a metric is there any more."""
        metric = self._metrics.pop(key)
        self._characters -= _weight(metric.definition)
        for tags in metric.ended:
            self._vacate(tags)

    def ended(self, process_id: bytes) -> None:
        """A process is no more: what it has counted stays."""
        self.left_out += self._lost.pop(process_id, 0)
        for key in self._of.pop(process_id, ()):
            metric = self._metrics[key]
            for tags, values in metric.told.pop(process_id, {}).items():
                if metric.definition.kind == m.GAUGE or tags in metric.ended:
                    self._vacate(tags)
                if metric.definition.kind != m.GAUGE:
                    metric.ended[tags] = _sum(metric.ended.get(tags), values)
            if not (metric.told or metric.ended):
                self._drop(key)

    def job_ended(self, job_id: bytes, now: float) -> None:
        """A job is over: what was counted can still be read for a while."""
        if any(one == job_id for one, _ in self._metrics):
            self._over.setdefault(job_id, now + limits.SERIES_KEPT_S)

    def _forget(self, now: float) -> None:
        """Jobs that have ended long enough ago are nobody's interest any more."""
        for job_id in [one for one, until in self._over.items() if now >= until]:
            mine = [key for key in self._metrics if key[0] == job_id]
            if not any(self._metrics[key].told for key in mine):
                del self._over[job_id]
                for key in mine:
                    self._drop(key)

    # ---- looks -------------------------------------------------------------------------------

    def processes(self) -> list[bytes]:
        """Those that have recorded something."""
        return [*self._lost]

    def lost(self) -> int:
        """How many series are not here."""
        return self.left_out + sum(self._lost.values())

    def programs(self, now: float) -> list[m.UserMetric]:
        """All of it: of each job one metric of a name."""
        self._forget(now)
        return [self._told(job_id, metric) for (job_id, _), metric in self._metrics.items()]

    def _told(self, job_id: bytes, metric: _Metric) -> m.UserMetric:
        definition = metric.definition
        series = []
        if definition.kind == m.GAUGE:
            for process_id, mine in metric.told.items():
                for tags, (value, _) in mine.items():
                    series.append(m.UserSeries([*tags], value, [], job_id, process_id))
        else:
            sums = dict(metric.ended)
            for mine in metric.told.values():
                for tags, values in mine.items():
                    sums[tags] = _sum(sums.get(tags), values)
            for tags, (value, counts) in sums.items():
                series.append(m.UserSeries([*tags], value, counts, job_id))
        what = (definition.name, definition.kind, definition.description)
        return m.UserMetric(*what, definition.keys, definition.boundaries, series)


def _defined(told: m.UserMetric) -> m.UserMetric:
    what = (told.name, told.kind, told.description)
    return m.UserMetric(*what, told.keys, told.boundaries)


def _fits(definition: m.UserMetric, told: m.UserMetric) -> bool:
    mine = (definition.kind, definition.keys, definition.boundaries)
    return mine == (told.kind, told.keys, told.boundaries)


def _size(tags: tuple[str, ...]) -> int:
    return 64 + sum(map(len, tags))


def _weight(definition: m.UserMetric) -> int:
    """Of what is kept once for a metric."""
    texts = (definition.name, definition.description, *definition.keys)
    return 64 + sum(map(len, texts)) + 8 * len(definition.boundaries)


def _sum(left: Values | None, right: Values) -> Values:
    if left is None:
        return right
    counts = [a + b for a, b in zip(left[1], right[1], strict=True)]
    return (left[0] + right[0], counts)
