"""``zray systemd-unit``: print a unit for systemd that runs a head or a worker node, and keeps it.

Must never write to the system's folders itself: what is printed can be read first.
"""

from __future__ import annotations

import os
import pwd
import shlex
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import click

from zray import limits
from zray._version import __version__

PROGRAMS = {"head": "zray-head", "worker": "zray-worker"}
_KEPT = ("ZRAY_HOME", "ZRAY_CONNECTION_FILE", "ZRAY_ADDRESS")  # of this environment; no secret
_OWN = ("--detach", "--supervise", "--watchdog", "--help", "--version")

_UNIT = """\
# Printed by zray systemd-unit {version}. To install it:
#   {command} {target}
#   {systemctl} daemon-reload && {systemctl} enable --now {program}
[Unit]
Description={what}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
{lines}ExecStart={start}
Restart=on-failure
RestartSec=1
# Started again it would say the same: options that are wrong, a damaged store, a missing key.
RestartPreventExitStatus=2 3
# It is killed and started again when its loop has not turned for so long.
WatchdogSec={watchdog_s:g}
TimeoutStartSec=infinity
TimeoutStopSec={stop_s:g}
{kill}
# A task that takes too much memory ends alone.
OOMPolicy=continue
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy={wanted}
"""
_KILL = {
    "head": "# The node on this machine, and what runs there, goes on while the head is away.\n"
    "KillMode=process",
    "worker": "KillMode=mixed",
}


@click.command(
    "systemd-unit",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[--user]",
)
@click.option("--user", is_flag=True, help="For your own systemd, as of systemctl --user.")
@click.argument("kind", type=click.Choice([*PROGRAMS]))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE DAEMON]...")
def systemd_unit(user: bool, kind: str, arguments: Sequence[str]) -> None:
    """Print a unit for systemd, which starts a head or a worker node again whenever it ends.

    What follows is given to zray-head or zray-worker, as in: zray systemd-unit head --host 0.0.0.0.
    ZRAY_HOME, ZRAY_CONNECTION_FILE and ZRAY_ADDRESS of this environment are taken over.

    Exit code 0.
    """
    program = PROGRAMS[kind]
    for own in _OWN:
        if any(argument.partition("=")[0] == own for argument in arguments):
            raise click.UsageError(f"{own} is not for a unit: systemd does what it is for")
    name = _checked(kind, arguments)
    lines = [] if user else [f"User={_user()}"]
    lines += [f"WorkingDirectory={_escaped(_here())}"]
    kept = {variable: os.environ.get(variable, "") for variable in _KEPT}
    lines += [f"Environment={_quoted(f'{one}={kept[one]}')}" for one in _KEPT if kept[one]]
    lines.append("# The place of passwords, such as ZRAY_ETCD_PASSWORD: a file of mode 0600.")
    lines.append(f"EnvironmentFile=-{'%E' if user else '/etc'}/zray/{program}.env")
    _check_lines([*arguments, *kept.values(), _here(), *_program(program)])
    folder = "~/.config/systemd/user" if user else "/etc/systemd/system"
    install = shlex.join(["zray", "systemd-unit", *(["--user"] if user else []), kind, *arguments])
    click.echo(
        _UNIT.format(
            version=__version__,
            command=f"{install} {'>' if user else '| sudo tee'}",
            target=f"{folder}/{program}.service",
            systemctl="systemctl --user" if user else "sudo systemctl",
            program=program,
            what=f"zray {kind}{f' ({name})' if name else ''}",
            lines="".join(f"{line}\n" for line in lines),
            start=_command([*_program(program), *arguments]),
            watchdog_s=limits.WATCHDOG_S,
            stop_s=limits.SUPERVISED_STOP_S,
            kill=_KILL[kind],
            wanted="default.target" if user else "multi-user.target",
        ),
        nl=False,
    )


def _checked(kind: str, arguments: Sequence[str]) -> str:
    """The daemon's ``--name``, if its options are right.

    Raises:
        click.UsageError: they are not.
    """
    from zray.cli import head, worker

    command = head.command if kind == "head" else worker.command
    context = command.make_context(PROGRAMS[kind], [*arguments])
    return str(context.params.get("name") or "")


def _program(program: str) -> list[str]:
    """How this very zray's daemon is started, whatever the path of the service.

    By the folder that this command was called in: that may be a link, which an upgrade moves.
    """
    for beside in (Path(sys.argv[0]).absolute(), Path(sys.executable)):
        script = beside.with_name(program)
        if script.exists():
            return [str(script)]
    return [sys.executable, "-m", f"zray.cli.{program.removeprefix('zray-')}"]


def _user() -> str:
    """Of this process: the name, or the number of one that has none, as in a container."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _here() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        text = f"this folder is not there any more ({error.strerror}); call it in another"
        raise click.ClickException(text) from None


def _check_lines(texts: Sequence[str]) -> None:
    """What has several lines would be several settings of the unit."""
    for text in texts:
        if any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in text):
            raise click.UsageError(f"{text!r} has a character that cannot be in a unit")


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _command(words: Sequence[str]) -> str:
    """``$`` begins a variable in an argument, not in the program (systemd.service(5))."""
    program, *arguments = words
    return " ".join([_quoted(program), *(_quoted(one).replace("$", "$$") for one in arguments)])


def _quoted(text: str) -> str:
    """One word of a unit (systemd.syntax(7))."""
    text = _escaped(text).replace("\\", "\\\\").replace('"', '\\"')
    plain = all(one.isalnum() or one in "_./:=,@%+-" for one in text) and text
    return text if plain else f'"{text}"'
