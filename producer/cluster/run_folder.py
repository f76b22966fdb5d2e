"""The folder of a private cluster, which the next run removes if its own run was killed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankmill.process import Process, pid_namespace

# Not TMPDIR: the path of a Unix socket is limited to 107 bytes.
_PARENT = Path("/tmp")
_PREFIX = "rankmill-"
_OWNER = "owner.json"


@contextmanager
def run_folder(parent: Path = _PARENT) -> Iterator[Path]:
    """Make a folder for the block, after those of this user's dead runs are removed."""
    _remove_dead(parent)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as name:
        folder = Path(name)
        me = Process.me()
        owner = {"pid": me.pid, "born": me.born, **_place()}
        (folder / _OWNER).write_text(json.dumps(owner))
        yield folder


def _remove_dead(parent: Path) -> None:
    """Remove the folders of this user's runs on this machine whose process is gone.

    A folder without an owner file is left alone, and so is one of another container or machine,
    whose processes cannot be seen from here.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            info = folder.lstat()
            if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
                continue
            owner = json.loads((folder / _OWNER).read_text())
            process = Process(int(owner.pop("pid")), str(owner.pop("born")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not a run folder, or one that ends right now
        if owner == _place() and process.born and not process.is_alive:
            shutil.rmtree(folder, ignore_errors=True)


def _place() -> dict[str, str]:
    return {"host": socket.gethostname(), "pid_namespace": pid_namespace()}
