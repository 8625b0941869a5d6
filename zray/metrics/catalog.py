"""Every metric of zray's own: its name, what it means, its labels. ``docs/metrics.md`` has it as a
table, and a test compares the two with what a cluster tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zray import limits

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
PROCESS = ("node", "process")


class Metric(NamedTuple):
    """``labels``: names, in the order in which their values are told. ``buckets``: upper bounds."""

    name: str
    kind: str
    help: str
    labels: Sequence[str] = ()
    buckets: Sequence[float] = ()


HEAD = (
    Metric(
        "zray_cluster_info",
        GAUGE,
        "Always 1; which cluster it is, and what its head runs.",
        ("cluster_id", "version", "python"),
    ),
    Metric("zray_head_epoch", GAUGE, "Rises by one with each start of the head."),
    Metric("zray_head_start_time_seconds", GAUGE, "When the head started, since 1970."),
    Metric("zray_head_healthy", GAUGE, "1: the health in zray status is OK; 0: it is degraded."),
    Metric("zray_head_recovering", GAUGE, "1: a restarted head waits for nodes of before."),
    Metric("zray_head_superseded", GAUGE, "1: a later head has written to the store."),
    Metric(
        "zray_heads", GAUGE, "Heads of the cluster: the one that leads, and those that stand by."
    ),
    Metric("zray_head_leads", GAUGE, "1: this head leads; 0: it stands by.", ("head", "host")),
    Metric(
        "zray_head_terms_total", COUNTER, "How often the process of this head has begun to lead."
    ),
    Metric(
        "zray_head_takeover_seconds",
        GAUGE,
        "How long that took the last time, from when the store said so until it served.",
    ),
    Metric("zray_store_stalled", GAUGE, "1: nothing can be stored at the moment (disk full)."),
    Metric(
        "zray_store_commit_seconds",
        HISTOGRAM,
        "How long commits of the control store took, until they were on the disk.",
        (),
        limits.COMMIT_BUCKETS_S,
    ),
    Metric(
        "zray_head_turn_seconds",
        HISTOGRAM,
        "How long turns of the head's loop took: messages that came meanwhile waited for so long.",
        (),
        limits.TURN_BUCKETS_S,
    ),
    Metric("zray_tasks", GAUGE, "Tasks that have not ended, by state.", ("state",)),
    Metric(
        "zray_tasks_pending",
        GAUGE,
        "Tasks that wait for a worker, by the reason that zray why gives.",
        ("reason",),
    ),
    Metric(
        "zray_tasks_pending_longest_seconds",
        GAUGE,
        "How long the next task of those that wait at the head has been waiting, the longest.",
    ),
    Metric(
        "zray_task_queue_seconds",
        HISTOGRAM,
        "How long tasks waited at the head until they were given to a node; those that go by "
        "leases do not pass it.",
        (),
        limits.TASK_BUCKETS_S,
    ),
    Metric(
        "zray_tasks_submitted_total",
        COUNTER,
        "Tasks and calls that were submitted: to the head, each once, as soon as they are; those "
        "that go straight to workers, when an attempt of them has ended.",
    ),
    Metric(
        "zray_tasks_ended_total",
        COUNTER,
        "Attempts of tasks and calls that have ended, by function (the first 100, then "
        "'(others)'), type, and state FINISHED or FAILED.",
        ("name", "type", "state"),
    ),
    Metric(
        "zray_tasks_untold_total",
        COUNTER,
        "Of these, how many were only counted: zray list does not have them.",
    ),
    Metric("zray_task_retries_total", COUNTER, "Attempts that followed one that had failed."),
    Metric("zray_tasks_reclaimed_total", COUNTER, "Tasks that a node gave back for another."),
    Metric(
        "zray_tasks_resubmitted_total",
        COUNTER,
        "Submissions that were known already: sent again after a connection was lost.",
    ),
    Metric(
        "zray_stale_results_total",
        COUNTER,
        "Results that were ignored: the attempt was given up, or its outcome was known.",
    ),
    Metric("zray_objects", GAUGE, "Objects that the head knows."),
    Metric("zray_objects_lost_total", COUNTER, "Objects whose last copy went with its node."),
    Metric("zray_objects_rebuilt_total", COUNTER, "Lost objects that were made again."),
    Metric("zray_functions", GAUGE, "Functions and classes that programs use."),
    Metric("zray_nodes", GAUGE, "Nodes that are not dead, by state.", ("state",)),
    Metric("zray_nodes_awaited", GAUGE, "Nodes of before the head's restart that are not back."),
    Metric(
        "zray_node_deaths_total",
        COUNTER,
        "Nodes that are dead: planned (they left), or lost.",
        ("cause",),
    ),
    Metric("zray_node_up", GAUGE, "1: the head hears of the node; 0: it is silent.", ("node",)),
    Metric("zray_node_silent_seconds", GAUGE, "Since the head last heard of it.", ("node",)),
    Metric("zray_node_troubled", GAUGE, "1: the node says that something goes wrong.", ("node",)),
    Metric("zray_node_workers", GAUGE, "Worker processes, as the head knows.", ("node",)),
    Metric(
        "zray_worker_deaths_total",
        COUNTER,
        "Worker processes that have ended, by how (Ray's exit types).",
        ("exit_type",),
    ),
    Metric("zray_resource_capacity", GAUGE, "What all nodes have, by resource.", ("resource",)),
    Metric("zray_resource_available", GAUGE, "What is free of it.", ("resource",)),
    Metric(
        "zray_placement_groups",
        GAUGE,
        "Placement groups: PENDING (those that lack places, again or still), CREATED.",
        ("state",),
    ),
    Metric("zray_actors", GAUGE, "Actors that are not dead, by state.", ("state",)),
    Metric("zray_actor_restarts_total", COUNTER, "Incarnations of actors that followed another."),
    Metric(
        "zray_actor_deaths_total",
        COUNTER,
        "Actors that are dead for good: planned, or failed.",
        ("cause",),
    ),
    Metric("zray_jobs", GAUGE, "Programs that use the cluster, by state.", ("state",)),
    Metric("zray_leases", GAUGE, "Workers that are leased to drivers and other workers."),
    Metric("zray_leases_wanted", GAUGE, "Workers more that these could use."),
    Metric("zray_sessions", GAUGE, "Connections of drivers, nodes and observers."),
    Metric(
        "zray_reconnects_total",
        COUNTER,
        "Sessions that followed another of the same process, by why that had ended.",
        ("cause",),
    ),
    Metric(
        "zray_auth_failures_total",
        COUNTER,
        "Peers that were not let in: 'key', or the stable code of the refusal.",
        ("code",),
    ),
    Metric(
        "zray_messages_rejected_total",
        COUNTER,
        "Messages that the head did not handle: of another epoch, without a session, not for the "
        "sender's role, malformed, or at fault.",
        ("reason",),
    ),
    Metric(
        "zray_silent_connections_cut_total",
        COUNTER,
        "Connections that were cut because too many said nothing.",
    ),
    Metric(
        "zray_send_failures_total",
        COUNTER,
        "Messages that could not be sent to a peer that was there; should stay 0.",
    ),
    Metric("zray_unsent_bytes", GAUGE, "Kept by the head for peers that do not read."),
    Metric("zray_relayed_bytes_total", COUNTER, "Of objects that passed the head."),
)

NODE = (
    Metric(
        "zray_node_resource_capacity",
        GAUGE,
        "What the node has, by resource.",
        ("node", "resource"),
    ),
    Metric("zray_node_resource_available", GAUGE, "What is free of it.", ("node", "resource")),
    Metric("zray_workers", GAUGE, "Worker processes, by what they do.", ("node", "state")),
    Metric(
        "zray_node_tasks",
        GAUGE,
        "Tasks on the node: queued, or with a worker; not those of leases.",
        ("node", "state"),
    ),
    Metric(
        "zray_task_duration_seconds",
        HISTOGRAM,
        "How long attempts ran. Past 1,000 in a second and worker, some stand for the others.",
        ("node", "type"),
        limits.TASK_BUCKETS_S,
    ),
    Metric(
        "zray_node_ends_untold", GAUGE, "Ends that the head has not acknowledged yet.", ("node",)
    ),
    Metric(
        "zray_leaked_processes_swept_total",
        COUNTER,
        "Processes of a node that its zygote's death had left, found by their environment and "
        "killed: workers, and what these had started.",
        ("node",),
    ),
    Metric("zray_node_incarnation", GAUGE, "Rises when the node was declared dead.", ("node",)),
    Metric(
        "zray_object_store_bytes",
        GAUGE,
        "Of the object store: used by objects, memory that its segments take, spilled to disk.",
        ("node", "kind"),
    ),
    Metric("zray_object_store_capacity_bytes", GAUGE, "What objects may take.", ("node",)),
    Metric("zray_node_objects", GAUGE, "Objects in the node's store, spilled ones too.", ("node",)),
    Metric(
        "zray_machine_memory_bytes", GAUGE, "Of the machine: total and available.", ("node", "kind")
    ),
    Metric(
        "zray_gpu_utilization",
        GAUGE,
        "How busy a GPU is, from 0 to 1; not of instances of MIG.",
        ("node", "gpu"),
    ),
    Metric("zray_gpu_memory_bytes", GAUGE, "Of a GPU: used and total.", ("node", "gpu", "kind")),
)

BOTH = (
    Metric("zray_processes", GAUGE, "Processes of a kind; of the head the node is empty.", PROCESS),
    Metric("zray_resident_memory_bytes", GAUGE, "RSS: shared memory counts for each.", PROCESS),
    Metric("zray_proportional_memory_bytes", GAUGE, "PSS: shared memory is shared out.", PROCESS),
    Metric("zray_cpu_seconds_total", COUNTER, "CPU time, of ended workers too.", PROCESS),
    Metric(
        "zray_incidents_total",
        COUNTER,
        "What went wrong in a daemon for one item only; its log has more.",
        PROCESS,
    ),
    Metric(
        "zray_user_series_left_out",
        GAUGE,
        "Series of programs for which there was no room.",
        ("node",),
    ),
)

METRICS = {one.name: one for one in (*HEAD, *NODE, *BOTH)}
