"""Run the last release, this checkout and a release to come against one Redis and one storage."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from producer.cluster.local import running
from producer.jobs.handle import find_job
from rankmill.settings import CHECKOUT

# The commit that counts as the last release.
LAST = Path(__file__).with_name("last_release").read_text().strip()
_ROOMS = ("rankmill", "producer", "worker", "tasks")
# The release to come: fields that may be ignored, a depth that must not be, and who sets them.
_IMPORTS = "from typing import Annotated\n\nfrom rankmill.contract.base import Since\n"
_FIELDS = {
    "rankmill/contract/job.py": {
        "JobOptions": "label: Annotated[str, Since(minor=1)] = ''\n"
        "    depth: Annotated[int, Since(major=4)] = 1",
        "JobRecord": "origin: Annotated[str, Since(minor=1)] = ''",
    },
    "rankmill/contract/plan.py": {"ShardSpec": "hint: Annotated[str, Since(minor=1)] = ''"},
    "rankmill/contract/results.py": {"ShardReport": "joules: Annotated[int, Since(minor=2)] = 0"},
}
_SET = {
    "producer/jobs/check.py": ("JobRecord(", "origin='x'"),
    "rankmill/contract/plan.py": ("return ShardSpec(", "hint='x'"),
    "worker/shard/run.py": ("return ShardReport(", "joules=7"),
}


@dataclass(frozen=True)
class Release:
    """A release's code, which runs with the packages of this environment."""

    name: str
    tree: Path

    def environment(self) -> dict[str, str]:
        """Return this process's environment for the release."""
        quiet = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_THREADS": "1"}
        return {**os.environ, **quiet, "PYTHONPATH": str(self.tree)}

    def rankmill(self, *arguments: object, code: int = 0) -> str:
        """Run a command, check its exit code, and return its stdout, or its stderr if it failed."""
        done = self.python("-m", "producer.cli", *arguments)
        assert done.returncode == code, (self.name, arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr if code else done.stdout

    def python(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run Python on the release's code."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self.tree,
            env=self.environment(),
        )

    def status(self, output: Path) -> dict[str, Any]:
        """Return the facts of `rankmill status`."""
        if self.tree == CHECKOUT:  # it is imported already
            return find_job(str(output)).status().model_dump(mode="json")
        facts: dict[str, Any] = json.loads(self.rankmill("status", output, "--json"))
        return facts


@dataclass
class Workers:
    """Workers of several releases, each with a log of its own in `folder`."""

    folder: Path
    stack: ExitStack
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, release: Release, role: str = "all", name: str = "") -> str:
        """Start a worker and return its name."""
        name = name or f"{release.name}-{role}"
        arguments = ("-m", "producer.cli", "worker", "--role", role, "--name", name)
        command = ["env", "--chdir", str(release.tree), sys.executable, *arguments]
        started = running(command, release.environment(), self.log_path(name))
        self.processes[name] = self.stack.enter_context(started)
        self.stack.callback(self.quit, name)
        return name

    def log_path(self, name: str) -> Path:
        """Return the place of a worker's log."""
        return self.folder / f"worker-{name}.log"

    def is_ready(self, name: str) -> bool:
        """Return whether a worker takes messages."""
        return " ready." in self.log_path(name).read_text()

    def terminate(self, name: str) -> None:
        """Let a worker finish its shard and end, as a rolling upgrade does."""
        self.processes[name].terminate()
        self.processes.pop(name).wait(60)

    def quit(self, name: str) -> None:
        """Stop a worker that still runs, at once."""
        process = self.processes.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGQUIT)

    def logs(self) -> str:
        """Return what all workers logged."""
        return "".join(log.read_text() for log in sorted(self.folder.glob("worker-*.log")))

    def check_logs(self) -> None:
        """Check that no worker met an error."""
        for log in self.folder.glob("worker-*.log"):
            wrong = ("Traceback", '"level": "error"', '"level": "critical"')
            lines = [line for line in log.read_text().splitlines() if any(w in line for w in wrong)]
            assert not lines, (log.name, lines[:3])


@contextmanager
def workers_in(folder: Path) -> Iterator[Workers]:
    """Yield workers that are all stopped at the end of the block."""
    with ExitStack() as stack:
        yield Workers(folder, stack)


def checkout() -> Release:
    """Return this checkout."""
    return Release("new", CHECKOUT)


def last_release(folder: Path) -> Release:
    """Extract the last release from the repository's history."""
    git = ("git", "-C", str(CHECKOUT), "archive", LAST)
    archive = subprocess.run(git, capture_output=True)
    assert archive.returncode == 0, (
        f"the commit {LAST} of tests/chaos/last_release is not in this clone: "
        f"{archive.stderr.decode().strip()}; fetch the whole history (git fetch --unshallow)"
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return Release("old", folder)


def release_to_come(folder: Path) -> Release:
    """Copy this checkout with fields that it does not know."""
    for room in _ROOMS:
        shutil.copytree(CHECKOUT / room, folder / room, ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("models", "examples"):
        (folder / name).symlink_to(CHECKOUT / name)
    for name, fields in _FIELDS.items():
        code = (folder / name).read_text()
        future = "from __future__ import annotations\n"
        code = code.replace(future, future + _IMPORTS, 1)
        for contract, lines in fields.items():
            head = rf'(class {contract}\(Contract\):\n    """.*?"""\n)'
            code, n_found = re.subn(head, rf"\1\n    {lines}\n", code, count=1, flags=re.DOTALL)
            assert n_found == 1, contract
        (folder / name).write_text(code)
    for name, (call, argument) in _SET.items():
        code = (folder / name).read_text()
        assert call in code, (name, call)
        (folder / name).write_text(code.replace(call, f"{call}{argument}, ", 1))
    return Release("newer", folder)
