"""A program on a terminal of its own, and what is to be seen there. Owns pseudo-terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

PIECE = re.compile(r"\x1b\[(\d*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def on_terminal(path: Path, columns: int = 100, **env: str) -> str:
    """All that a Python program writes to its terminal until it ends, which it does with 0."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **env}
    child = subprocess.Popen(
        [sys.executable, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={name: value for name, value in environment.items() if value},
    )
    os.close(theirs)
    written, deadline = b"", time.monotonic() + 40
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    written += os.read(ours, 65536)
                except OSError:  # nobody has the other end any more
                    break
        assert child.wait(10) == 0, written.decode(errors="replace")
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines that are to be seen at the end, but for colours."""
    lines, row, column = [""], 0, 0
    for number, command, control, text in PIECE.findall(COLOUR.sub("", written)):
        if control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif command == "A":
            row -= int(number or 1)
        elif command == "K":
            lines[row] = lines[row][:column]
        elif command == "J":
            lines[row] = lines[row][:column]
            del lines[row + 1 :]
        elif text:
            assert not command
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
    return lines
