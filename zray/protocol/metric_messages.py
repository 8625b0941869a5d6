"""The messages of metrics: figures of the head and of nodes, and what programs record.

An observer asks with SCRAPE, and nothing is told before. Programs tell the absolute values of what
has changed, so that a message that comes twice, or never, does no harm.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Count, Id, IdOrNone, Message, Name, Seq, Text
from zray.protocol.state_messages import Brief

# UserMetric.kind
COUNTER = 1
GAUGE = 2
HISTOGRAM = 3

Label = Annotated[str, Meta(max_length=limits.LABEL_MAX)]
Counts = Annotated[list[Count], Meta(max_length=limits.BUCKETS_MAX + 1)]
Labels = Annotated[list[Label], Meta(max_length=limits.LABELS_MAX)]


class Figure(Struct, array_like=True, frozen=True, gc=False):
    """One series of a metric of zray's own: ``labels`` are the values of its labels, in the order
    of the metric's definition. Of a histogram, ``value`` is the sum and ``counts`` has how many
    were in each bucket, the last those beyond all."""

    name: Name
    value: float
    labels: Labels = []
    counts: Counts = []


class UserSeries(Struct, array_like=True, frozen=True, gc=False):
    """One series that a program has recorded. ``tags``: values, in the order of the metric's keys;
    the others as in Figure. ``job_id`` and ``worker_id``: whose it is, in answers."""

    tags: Labels
    value: float
    counts: Counts = []
    job_id: IdOrNone = b""
    worker_id: IdOrNone = b""


class UserMetric(Struct, array_like=True, frozen=True, gc=False):
    """A metric of a program. ``boundaries``: of a histogram's buckets, but the last."""

    name: Name
    kind: Annotated[int, Meta(ge=COUNTER, le=HISTOGRAM)]
    description: Brief = ""
    keys: Labels = []
    boundaries: Annotated[list[float], Meta(max_length=limits.BUCKETS_MAX)] = []
    series: Annotated[list[UserSeries], Meta(max_length=limits.SERIES_ANSWER_MAX)] = []


UserMetrics = Annotated[list[UserMetric], Meta(max_length=limits.SERIES_ANSWER_MAX)]


class Scrape(Message, tag=200):
    """The figures of the node ``target``, or, where that is empty, of the head and the cluster?"""

    source: Id
    target: IdOrNone = b""


class Scraped(Message, tag=201):
    """The answer to SCRAPE. ``node``: the name of whom it is of; empty: the head.

    ``left_out``: series of programs that there was no room for, here or where they were recorded.
    """

    target: Id
    about: Seq
    code: Name = ""
    text: Text = ""
    node: Name = ""
    figures: Annotated[list[Figure], Meta(max_length=limits.SERIES_ANSWER_MAX)] = []
    programs: UserMetrics = []
    left_out: Count = 0


class Recorded(Message, tag=202):
    """Worker to raylet, driver to head: series that a program has recorded, as they are now.

    Those of counters and histograms never fall. ``left_out``: of how many it has lost count.
    """

    programs: Annotated[list[UserMetric], Meta(max_length=limits.SERIES_PROCESS_MAX)]
    left_out: Count = 0


METRIC_MESSAGES: tuple[type[Message], ...] = (Scrape, Scraped, Recorded)
