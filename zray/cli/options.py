"""What command line options accept: text in, checked values out, and hints where it is wrong.

Must never import zmq for an option that is not given: help stays fast.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import math
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from zray import limits

CPUS_MAX: Final = 65_536  # of one node; more is a slip of the finger
MEMORY_BYTES_MAX: Final = 1 << 39  # what a resource's amount may be: options.AMOUNT_MAX
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,127}")
_WEB_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")
_NAME_RULE: Final = (
    "use 1 to 128 letters, digits, '_', '.', ':' or '-', not starting with '.' or ':'"
)
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]?)(i?)(b?)", re.IGNORECASE)
_REPR: Final = re.compile(r"(?:ObjectRef\(|Actor\(.*, )([0-9a-f]{32,40})(?:,.*)?\)?", re.IGNORECASE)
_LABELS_FILE: Final = "zray.labels_file"
_OWN_OPTIONS: Final = {"CPU": "--num-cpus", "GPU": "--num-gpus", "memory": "--memory"}

P = ParamSpec("P")
T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def checked(convert: Callable[P, T]) -> Callable[P, T]:
    """An option's type from a function: its ValueError becomes a usage error with that text."""

    @functools.wraps(convert)
    def converted(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return convert(*args, **kwargs)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return converted


class Between(click.FloatRange):
    """A number within bounds, which NaN passes in click's own."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is no number", param, ctx)
        return found


@checked
def addresses(text: str) -> list[str]:
    """One or more ``host:port``, separated by commas."""
    from zray.runtime.connection import format_address, parse_address

    return [format_address(*parse_address(part)) for part in text.split(",")]


@checked
def host(text: str) -> str:
    """An address of this machine to listen on, as a numeric text."""
    text = text.strip()
    if text == "*":
        return "0.0.0.0"
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(text, None, socket.AF_INET)[0][4][0])
    except (OSError, UnicodeError):
        raise ValueError(
            f"{text!r} is no address and no known name; use 127.0.0.1 for this machine only, or "
            "0.0.0.0 for all networks"
        ) from None


@checked
def port(value: str | int) -> int:
    """Where a head listens; 0 draws a free one."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and int(text[:6]) < 65536):
        raise ValueError(f"the port must be a number from 0 (any free one) to 65535, not {text!r}")
    if int(text) == limits.DASHBOARD_PORT:
        raise ValueError(f"{text} is the dashboard's; a head's is usually {limits.HEAD_PORT}")
    return int(text)


@checked
def dashboard_port(value: str | int) -> int:
    """Where a page is; 0 draws a free one."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and int(text[:6]) < 65536):
        raise ValueError(f"the port must be a number from 0 (any free one) to 65535, not {text!r}")
    if int(text) == limits.HEAD_PORT:
        raise ValueError(f"{text} is a head's; the page's is usually {limits.DASHBOARD_PORT}")
    return int(text)


@checked
def web_name(text: str) -> str:
    """A host's name, as browsers have it in the address."""
    name = text.strip().lower().removesuffix(".")
    if not _WEB_NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not the name of a host, such as zray.example.org")
    return name


@checked
def seconds(text: str) -> float:
    """For how long to wait."""
    return _seconds(text, 0.0, limits.HEAD_WAIT_MAX_S)


@checked
def lost_after(text: str) -> float:
    """After how long a driver is given up."""
    return _seconds(text, limits.DRIVER_LOST_MIN_S, limits.DRIVER_LOST_MAX_S)


def _seconds(text: str, least: float, most: float) -> float:
    with contextlib.suppress(ValueError):
        if least <= (found := float(text)) <= most:
            return found
    raise ValueError(f"{text!r} is not a number of seconds from {least:g} to {most:.0f}")


@checked
def name(text: str) -> str:
    """The name of a cluster or of a node."""
    return _name(text)


@checked
def cpus(text: str) -> float:
    return amount("CPU", text, CPUS_MAX)


@checked
def gpus(text: str) -> float:
    return amount("GPU", text)


@checked
def memory(text: str) -> int:
    """A number of bytes, such as ``4GiB`` or ``500MB``."""
    return _bytes(text)


@checked
def store(text: str) -> str:
    """Where a head keeps its state, if that is no file."""
    if text:
        from zray.store import etcd_address

        etcd_address.parse(text, os.environ)
    return text


@checked
def store_memory(text: str) -> int:
    """The same, enough for an object store to work with."""
    size = _bytes(text)
    if size < limits.STORE_BYTES_MIN:
        raise ValueError(f"{text!r} is too little; a store needs {limits.STORE_BYTES_MIN >> 20}MiB")
    return size


@checked
def resources(text: str) -> dict[str, float]:
    """Custom resources: ``{"a": 1, "b": 0.5}`` or ``a=1,b=0.5``."""
    found = {key: amount(key, value) for key, value in pairs(text)}
    for key, option in _OWN_OPTIONS.items():
        if key in found:
            raise ValueError(f"{key} has an option of its own: {option}")
    return found


@checked
def labels(text: str) -> dict[str, str]:
    """Labels of a node: ``zone=a,disk=ssd`` or a JSON object of texts."""
    found = dict(pairs(text))
    for key, value in found.items():
        if not isinstance(value, str) or not value.isprintable() or len(value) > 256:
            raise ValueError(
                f"the value of label {key!r} must be a printable text of at most 256 characters, "
                f"not {value!r}"
            )
    return found


@checked
def labels_file(path: str) -> dict[str, str]:
    """The same of a file: a JSON object, or lines ``zone: a`` as in YAML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if text.lstrip().startswith("{"):
        return dict(labels(text))
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if line and not line.startswith(("#", "---")):
            if not (colon and name.strip()):
                raise ValueError(f"{path}: {line!r} is no label; write zone: a")
            found[name.strip().strip("\"'")] = value.strip().strip("\"'")
    return dict(labels(json.dumps(found))) if found else {}


def _labels_of_file(
    context: click.Context, option: click.Parameter, value: dict[str, str] | None
) -> None:
    context.meta[_LABELS_FILE] = value or {}


def _all_labels(
    context: click.Context, option: click.Parameter, value: dict[str, str]
) -> dict[str, str]:
    return {**context.meta.get(_LABELS_FILE, {}), **value}


@checked
def module(text: str) -> str:
    """The name of a Python module."""
    if text.endswith(".py"):
        name = text[:-3].replace("/", ".")
        raise ValueError(f"{text!r} is a file, and modules are named without .py: write {name}")
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError(f"{text!r} is not a module's name, such as census or app.tasks")
    return text


@checked
def thing(text: str) -> str:
    """An id or a name, or what ``repr`` of a reference or of an actor's handle shows."""
    found = _REPR.fullmatch(text.strip())
    name = found[1] if found is not None else text.strip()
    if not 0 < len(name) <= limits.NAME_MAX:
        raise ValueError(
            f"{text[:80]!r} is no id or name, which has 1 to {limits.NAME_MAX} characters; "
            "zray status shows them, and ref.hex() is an object's"
        )
    return name


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write 4GiB, 500MB or a number of bytes")
    number, scale, binary, unit = found.groups()
    base = 1000.0 if unit and not binary else 1024.0  # 4G and 4Gi are 4GiB; 4GB is 4 * 10^9
    size = float(number) * math.pow(base, " kmgt".index(scale.lower() or " "))
    if size >= MEMORY_BYTES_MAX:
        raise ValueError(f"{text!r} is more than a node can offer, which is below 512GiB")
    return round(size)


def amount(resource: str, value: Any, most: float = math.inf) -> float:
    """``value``, or the number its text says, as an amount of ``resource``.

    Raises:
        ValueError: it is no number, negative, too fine or over ``most``.
    """
    from zray.nodes.options import unit

    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"the amount of resource {resource!r} must be a number, not {value!r}"
        ) from None
    unit(resource, number)
    if number > most:
        raise ValueError(
            f"the amount of resource {resource!r} may be {most:,.0f} at most, not {value!r}"
        )
    return number


def pairs(text: str) -> list[tuple[str, Any]]:
    """Names and values from a JSON object or from ``name=value,...``.

    Raises:
        ValueError: it is neither, or a name is malformed or comes twice.
    """
    text = text.strip()
    if text.startswith(("{", "[")):
        found = _json_pairs(text)
    else:
        found = []
        for part in filter(None, map(str.strip, text.split(","))):
            key, equals, value = part.partition("=")
            if not equals:
                raise ValueError(f"{part!r} has no value; write NAME=VALUE,... or a JSON object")
            found.append((key.strip(), value.strip()))
    seen: set[str] = set()
    for key, _ in found:
        if _name(key) in seen:
            raise ValueError(f"{key!r} is given twice")
        seen.add(key)
    return found


def _json_pairs(text: str) -> list[tuple[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{text!r} is not JSON: {error}") from None
    if not text.startswith("{"):
        raise ValueError(f'{text!r} is JSON, but not an object such as {{"a": 1}}')
    return [*found]


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a name; {_NAME_RULE}")
    return text


def heads(given: Sequence[Sequence[str]]) -> list[str]:
    """Addresses from the options or ZRAY_ADDRESS, each once; empty: the head of this machine."""
    found = [address for group in given for address in group]
    text = os.environ.get("ZRAY_ADDRESS", "")
    if not found and text not in ("", "auto", "local"):
        try:
            found = addresses(text)
        except click.BadParameter as error:
            raise click.UsageError(f"ZRAY_ADDRESS: {error.message}") from None
    return [*dict.fromkeys(found)]


def address_option(command: Command) -> Command:
    return click.option(
        "--address",
        "given",
        type=addresses,
        multiple=True,
        metavar="HOST:PORT",
        help="The head; several with commas, or repeat the option. Default: ZRAY_ADDRESS, or the "
        "head on this machine.",
    )(command)


def resource_options(command: Command) -> Command:
    """What a node offers; by default what the machine has."""
    for option in (
        click.option(
            "--labels",
            type=labels,
            default="",
            metavar="K=V,...",
            help="Node's labels; they count more than those of a file.",
            callback=_all_labels,
        ),
        click.option(
            "--labels-file",
            type=labels_file,
            metavar="FILE",
            help="Node's labels, a line for each: zone: a; or a JSON object.",
            callback=_labels_of_file,
            expose_value=False,
            is_eager=True,
        ),
        click.option(
            "--resources",
            type=resources,
            default="",
            metavar="K=N,...",
            help="Custom resources, as a=1,b=0.5 or as JSON.",
        ),
        click.option(
            "--memory",
            "memory_bytes",
            type=memory,
            metavar="SIZE",
            help="Memory to offer, as 4GiB or 500MB. Default: all.",
        ),
        click.option(
            "--max-workers",
            type=click.IntRange(1, limits.WORKERS_MAX),
            metavar="N",
            help="Processes that may have tasks at a time, those that wait for others among them; "
            "each job may have its part whatever others have. "
            f"Default: {limits.WORKERS_PER_CPU} for each CPU, at least {limits.WORKERS_MIN}.",
        ),
        click.option("--num-gpus", type=gpus, metavar="N", help="GPUs to offer. Default: all."),
        click.option("--num-cpus", type=cpus, metavar="N", help="CPUs to offer. Default: all."),
    ):
        command = option(command)
    return command


def dashboard_options(command: Command) -> Command:
    """Where a head's page is."""
    for option in (
        click.option("--no-dashboard", is_flag=True, help="No page for browsers, and no HTTP API."),
        click.option(
            "--dashboard-name",
            "dashboard_names",
            type=web_name,
            multiple=True,
            metavar="NAME",
            help="A host name under which browsers reach the page, as by way of a proxy; beside "
            "localhost and addresses of this machine. Repeat for more.",
        ),
        click.option(
            "--dashboard-port",
            type=dashboard_port,
            metavar="PORT",
            help=f"Port of the page; 0: any free one. Default: {limits.DASHBOARD_PORT}, or the "
            "next that is free.",
        ),
        click.option(
            "--dashboard-host",
            type=host,
            metavar="ADDRESS",
            default="127.0.0.1",
            show_default=True,
            help="Address on which the page is served; 0.0.0.0: all networks.",
        ),
        click.option(
            "--dashboard-cert",
            type=Path,
            metavar="FILE",
            help="Serve the page with TLS: a certificate and its chain, in PEM. Default: it is not "
            "encrypted.",
        ),
        click.option(
            "--dashboard-key",
            type=Path,
            metavar="FILE",
            help="The certificate's private key, in PEM without a passphrase, where it is not in "
            "the same file.",
        ),
    ):
        command = option(command)
    return command


def store_options(command: Command) -> Command:
    """Where a node keeps large values, and how many."""
    for option in (
        click.option(
            "--spill-directory",
            type=click.Path(file_okay=False, path_type=Path),
            callback=lambda _context, _option, path: path and path.absolute(),
            metavar="DIR",
            help="Where objects go that memory has no room for. Default: a folder of its own below "
            "that for temporary files.",
        ),
        click.option(
            "--object-store-memory",
            "object_store_bytes",
            type=store_memory,
            metavar="SIZE",
            help="Memory for objects, as 4GiB or 500MB. Default: "
            f"{limits.STORE_SHARE:.0%} of the machine's.",
        ),
    ):
        command = option(command)
    return command


def import_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Modules that offer functions and actor classes by name, and where they are looked for."""

    @functools.wraps(command)
    def given(*args: Any, imports: tuple[str, ...], **others: Any) -> Any:
        # Now: a daemon that detaches leaves the directory that it was started in.
        place = {"import_directory": os.getcwd()} if imports else {}
        return command(*args, imports=imports, **place, **others)

    return click.option(
        "--import",
        "imports",
        type=module,
        multiple=True,
        metavar="MODULE",
        help="Offer what the module has by name (@zray.task(name=...), @zray.actor(offer=...)) to "
        "programs without the code, in any language. Looked for in this directory first. Repeat "
        "for more.",
    )(given)


def warn_of_cpus(program: str, num_cpus: float | None) -> None:
    """More CPUs than there are is allowed, and seldom meant."""
    has = os.cpu_count()
    if num_cpus is not None and has is not None and num_cpus > has:
        text = f"--num-cpus {num_cpus:g} is more than the {has} CPUs of this machine"
        click.echo(f"{program}: warning: {text}", err=True)
