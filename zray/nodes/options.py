"""What a daemon is told at its start. Plain data, checked at the edge; imports the base only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from zray import limits

AMOUNT_MAX = 2**39  # in units of 1/10000 this is below 2^53, what every language can count


class NodeOptions(NamedTuple):
    """One raylet. None: detect. ``resources`` in ordinary units, such as ``{"GPU_MEM": 0.5}``."""

    name: str = ""
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory_bytes: int | None = None
    resources: dict[str, float] = {}  # noqa: RUF012 - never changed
    labels: dict[str, str] = {}  # noqa: RUF012 - never changed
    log_directory: Path | None = None
    object_store_bytes: int | None = None
    spill_directory: Path | None = None
    imports: tuple[str, ...] = ()  # modules that offer functions and classes by name
    max_workers: int | None = None  # that may have tasks at a time; None: by its CPUs
    import_directory: str = ""  # where they are looked for first
    offers: tuple[str, ...] = ()  # the names, once it is known that the modules can be imported


class DashboardOptions(NamedTuple):
    """The page of a head. ``port`` None: the usual one, or the next that is free; 0: any.

    ``names``: under which it is reached, beside addresses of this machine, as by way of a proxy.
    ``cert``, ``key``: PEM files; empty: it is not encrypted, or the key is beside the certificate.
    """

    wanted: bool = True
    host: str = "127.0.0.1"
    port: int | None = None
    names: tuple[str, ...] = ()
    idle_s: float = limits.DASHBOARD_IDLE_S
    cert: str = ""
    key: str = ""


class HeadOptions(NamedTuple):
    """One head. ``local``: it belongs to a driver, keeps nothing and ends with its lifeline."""

    name: str = "default"
    host: str = "127.0.0.1"
    port: int = limits.HEAD_PORT
    data_directory: Path | None = None
    local: bool = False
    node: NodeOptions = NodeOptions()
    adopt: bool = False  # its store may be older than the cluster
    store: str = ""  # such as etcd://h1:2379,h2:2379; empty: a file in the data directory
    driver_lost_after_s: float = limits.DRIVER_LOST_S
    dashboard: DashboardOptions = DashboardOptions()


def units(options: NodeOptions, cpus: float, gpus: int, memory_bytes: int) -> dict[str, int]:
    """The node's resources in units of 1/10000, detected where nothing was said.

    Raises:
        ValueError: an amount is negative, not a number, or finer than 0.0001; a name is too long,
            or no text that UTF-8 can carry; all options together are too long.
    """
    size = len(json.dumps(encode_node(options)))
    if size > limits.NODE_OPTIONS_BYTES_MAX:
        raise ValueError(
            f"a node's resources, labels and other options must have at most "
            f"{limits.NODE_OPTIONS_BYTES_MAX} bytes together, and these have {size}"
        )
    detected = min(memory_bytes, AMOUNT_MAX - 1)
    texts = {"name": options.name, **dict.fromkeys(options.resources, "")}
    for name, value in {**texts, **options.labels}.items():
        checked_text("the name of a resource or label", name)
        checked_text(f"the value of {name!r}", value)
    chosen: dict[str, float] = {
        "CPU": cpus if options.num_cpus is None else options.num_cpus,
        "GPU": gpus if options.num_gpus is None else options.num_gpus,
        "memory": detected if options.memory_bytes is None else options.memory_bytes,
        **options.resources,
    }
    return {name: amount for name, value in chosen.items() if (amount := unit(name, value))}


def checked_text(option: str, value: str) -> str:
    """A text that every process of a cluster can read.

    Raises:
        ValueError: it is too long, or has a lone surrogate, which UTF-8 cannot carry.
    """
    if len(value) > limits.NAME_MAX:
        raise ValueError(
            f"{option} must have at most {limits.NAME_MAX} characters, got {len(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{option} must be text that UTF-8 can carry, got {value!a}") from None
    return value


def unit(name: str, value: float) -> int:
    """An amount in units of 1/10000.

    Raises:
        ValueError: negative, not finite, or finer than 0.0001.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"the amount of resource {name!r} must be a number, not {value!r}")
    if not 0 <= value < AMOUNT_MAX:
        raise ValueError(f"the amount of resource {name!r} must be from 0 to 2^39, not {value!r}")
    amount = round(value * limits.RESOURCE_UNIT)
    if abs(amount - value * limits.RESOURCE_UNIT) > 1e-3:
        raise ValueError(
            f"the amount of resource {name!r} has a granularity of 1/{limits.RESOURCE_UNIT}; "
            f"{value!r} is finer"
        )
    return amount


def encode_node(options: NodeOptions) -> dict[str, Any]:
    """Node options as JSON, for a raylet that is started by a head."""
    found = options._asdict()
    for name in ("log_directory", "spill_directory"):
        found[name] = str(found[name]) if found[name] else None
    return found


def decode_node(found: dict[str, Any]) -> NodeOptions:
    tuples = {name: tuple(found[name]) for name in ("imports", "offers")}
    decoded: dict[str, Any] = {**found, **tuples}
    for name in ("log_directory", "spill_directory"):
        decoded[name] = Path(found[name]) if found[name] else None
    return NodeOptions(**decoded)


def encode_head(options: HeadOptions) -> str:
    """Head options as JSON, for a head that is started by a driver or a supervisor."""
    found = {**options._asdict(), "node": encode_node(options.node)}
    found["data_directory"] = str(options.data_directory) if options.data_directory else None
    return json.dumps({**found, "dashboard": options.dashboard._asdict()})


def decode_head(text: str) -> HeadOptions:
    """What ``encode_head`` has made."""
    found: dict[str, Any] = json.loads(text)
    if found["data_directory"]:
        found["data_directory"] = Path(found["data_directory"])
    dashboard = DashboardOptions(**found["dashboard"])
    dashboard = dashboard._replace(names=tuple(dashboard.names))
    return HeadOptions(**{**found, "node": decode_node(found["node"]), "dashboard": dashboard})
