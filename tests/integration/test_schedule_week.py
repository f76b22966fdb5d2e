"""A week in a minute: beats, workers and three schedules through a clock change and a killed beat.

The clock that schedules go by runs ten thousand times as fast; nothing else does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from producer.cluster.local import running
from producer.schedules.store import Store
from rankmill import storage
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Output
from rankmill.settings import CHECKOUT, settings
from tests.conftest import StartWorker
from tests.support.command import rankmill
from tests.support.inputs import pairs, wait_for, write

FAULTS = CHECKOUT / "tests" / "faults"
BEAT = [*(sys.executable, "-m", "celery", "-A", "tasks", "beat", "-S", "tasks.beat:OwnScheduler")]
# Berlin's clocks go back on Sunday the 25th, at three.
BEGIN, END = datetime(2026, 10, 22, tzinfo=UTC), datetime(2026, 10, 29, tzinfo=UTC)
SPEED = (END - BEGIN).total_seconds() / 60


def at(*times: str) -> list[datetime]:
    return [datetime.fromisoformat(time).astimezone(UTC) for time in times]


DUES = {
    "nightly": at(
        *(f"2026-10-{day}T02:30+02:00" for day in (22, 23, 24, 25)),
        *(f"2026-10-{day}T02:30+01:00" for day in (26, 27, 28)),
    ),
    "twice-a-day": at(
        *(f"2026-10-{day}T{hour}:00-04:00" for day in range(22, 29) for hour in ("01", "13"))
    ),
    "slow": at(*(f"2026-10-{22 + n // 4}T{n % 4 * 6:02d}:00+00:00" for n in range(1, 28))),
}


@dataclass
class Week:
    folder: Path
    ledger: Ledger
    clock: Path
    beats: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def set_clock(self, shown: datetime, speed: float) -> None:
        """Set the time, and how fast it passes from now on."""
        text = f"{self.ledger.now()} {shown.timestamp()} {speed}"
        storage.write_bytes(str(self.clock), text.encode())

    def now(self) -> datetime:
        real, shown, speed = map(float, self.clock.read_text().split())
        return datetime.fromtimestamp(shown + (self.ledger.now() - real) * speed, UTC)

    def start_beat(self, name: str) -> None:
        log = self.folder / f"beat-{name}.log"
        command = [*BEAT, "--loglevel", "INFO"]
        self.beats[name] = self._stack.enter_context(running(command, {}, log))

    def leader(self) -> str | None:
        """Return the living beat that holds the lock."""
        logs = {name: self.folder / f"beat-{name}.log" for name in self.beats}
        return next((n for n, log in logs.items() if "Acquired lock" in log.read_text()), None)

    def kill_leader(self) -> None:
        leader = self.leader()
        assert leader is not None and len(self.beats) == 2
        os.killpg(self.beats.pop(leader).pid, signal.SIGKILL)

    def is_up_to_date(self) -> bool:
        """Whether all schedules have been looked at, and none runs or has something waiting."""
        store, time = Store.connect(settings()), self.now()
        seen = [store.seen(name) for name in DUES]
        firings = [firing for name in DUES for firing in store.firings(name)]
        # A tick that was at it when the clock was stopped may have seen a little more.
        looked_at = all(each is not None and each >= time for each in seen)
        return looked_at and not any(firing.state.is_open for firing in firings)

    def add(self, name: str, cron: str, tz: str, model: str, *policies: object) -> None:
        shards = ("--shard-pairs", 2) if model != "null" else ()
        job = (self.folder / "in.parquet", self.folder / name, "--model", model, *shards)
        when = ("--cron", cron, "--tz", tz, "--grace-min", 480)
        said = rankmill("schedule", "add", name, *when, *policies, "--", *job)
        assert said.returncode == 0, said.stderr

    def history(self, name: str) -> list[dict[str, Any]]:
        said = rankmill("schedule", "history", name, "--last", 1000, "--json")
        assert said.returncode == 0, said.stderr
        found: list[dict[str, Any]] = json.loads(said.stdout)
        return found


@pytest.fixture
def week(
    tmp_path: Path, ledger: Ledger, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Week]:
    """Two workers, two beats of which one is on standby, and a clock that does not move."""
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    monkeypatch.setenv("RANKMILL_TEST_CLOCK", str(tmp_path / "clock"))
    monkeypatch.setenv("RANKMILL_TICK_S", "1")
    with ExitStack() as stack:
        week = Week(tmp_path, ledger, tmp_path / "clock", _stack=stack)
        week.set_clock(BEGIN, speed=0)
        for name in ("one", "two"):
            start_worker(name)
            week.start_beat(name)
        wait_for(lambda: ledger.workers.n_live() == 2 and week.leader() is not None)
        yield week


@pytest.mark.timeout(280)
def test_every_due_time_of_a_week_is_accounted_for(week: Week) -> None:
    write(pairs(12, 2), week.folder / "in.parquet")
    week.add("nightly", "30 2 * * *", "Europe/Berlin", "null", "--missed", "latest")
    week.add("twice-a-day", "0 1,13 * * *", "America/New_York", "null", "--overlap", "queue")
    week.add("slow", "0 */6 * * *", "UTC", "null:2")  # its six seconds are sixteen hours
    week.set_clock(BEGIN, SPEED)
    wait_for(lambda: week.now() > datetime(2026, 10, 24, 12, tzinfo=UTC))
    week.kill_leader()
    wait_for(lambda: week.leader() is not None)
    week.start_beat("one again")
    wait_for(lambda: week.now() > END)
    week.set_clock(week.now(), speed=0)
    wait_for(week.is_up_to_date, 90)

    states = {name: assert_accounted_for(week, name) for name in DUES}
    assert states["slow"]["skipped: overlap"] >= 3, states
    n_runs = sum(each["succeeded"] for each in states.values())
    assert n_runs == len(week.ledger.job_ids())


def assert_accounted_for(week: Week, name: str) -> Counter[str]:
    """Each due time once; each run once, in a folder of its own, after the one before."""
    history = week.history(name)
    dues = [datetime.fromisoformat(each["due"]) for each in history]
    assert [due for due in dues if due < END] == DUES[name]
    states = Counter(each["state"] for each in history)
    assert set(states) <= {"succeeded", "skipped: overlap", "skipped: missed"}, (name, states)

    ran = [each for each in history if each["state"] == "succeeded"]
    output = week.folder / name
    folders = sorted(
        path.name for path in output.iterdir() if path.is_dir() and path.name != "_rankmill"
    )
    assert folders == sorted(Path(each["output_uri"]).name for each in ran)
    assert len({each["job_id"] for each in ran}) == len(ran) == len(set(folders)) >= 2
    assert all(Output(each["output_uri"]).is_success() for each in ran)
    assert all(before["ended_at"] <= after["started_at"] for before, after in pairwise(ran))
    latest = json.loads((output / "latest.json").read_text())
    assert latest["output_uri"] == ran[-1]["output_uri"]
    return states
