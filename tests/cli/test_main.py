"""What all commands share: help at once, a version, exit code 2 for what is not understood."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import zray

PROGRAMS = ["zray", "zray-head", "zray-worker"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_version(commands: Any, program: str) -> None:
    said = commands.run(program, "--version").stdout

    assert said == f"{program} {zray.__version__}\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_names_the_program_and_its_options(commands: Any, program: str) -> None:
    said = commands.run(program, "--help").stdout

    assert said.startswith(f"Usage: {program} ")
    assert "--version" in said


@pytest.mark.parametrize("command", ["status", "why", "stop"])
def test_help_of_subcommands_states_their_exit_codes(commands: Any, command: str) -> None:
    assert "Exit code 0" in commands.run("zray", command, "--help").stdout


@pytest.mark.parametrize("module", ["main", "head", "worker"])
def test_help_loads_no_network_library(module: str) -> None:
    source = (
        f"import sys; from zray.cli import {module}\n"
        "try:\n"
        f"    {module}.command(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print({'zmq', 'msgspec', 'psutil', 'cloudpickle'} & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=20
    )

    assert done.stderr == "set()\n"


def test_unknown_words_are_usage_errors(commands: Any) -> None:
    assert "No such command" in commands.run("zray", "stat", code=2).stderr
    assert "No such option" in commands.run("zray", "status", "--jsn", code=2).stderr
    assert "unexpected extra argument" in commands.run("zray-head", "start", code=2).stderr


def test_output_that_cannot_be_written_is_said_in_one_line(commands: Any) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            commands.line("zray", "--help"), stdout=full, stderr=subprocess.PIPE, timeout=20
        )

    assert done.returncode == 1
    assert done.stderr == b"zray: the output cannot be written: No space left on device\n"


def test_what_is_no_number_is_within_no_bounds(commands: Any) -> None:
    done = subprocess.run(
        commands.line("zray", "timeline", "--seconds", "nan"),
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.returncode == 2 and "'nan' is no number" in done.stderr
