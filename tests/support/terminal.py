"""Run a command in a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path


def in_terminal(width: int, folder: Path, *command: str, **environment: str) -> tuple[int, str]:
    """Run `rankmill` in a terminal of `width` columns; return its code and all that it showed."""
    ours, theirs = pty.openpty()
    given = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", *command],
        cwd=folder,
        env={**given, "TERM": "xterm-256color", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the command has gone
            break
        shown += piece
    os.close(ours)
    return process.wait(), shown.decode(errors="replace")
