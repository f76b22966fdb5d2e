"""Schedules under test, with a clock that the test sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producer.schedules import runs
from producer.schedules.changes import changes, make
from producer.schedules.file import schedule_spec
from producer.schedules.spec import Firing, FiringState, ScheduleSpec
from producer.schedules.store import Store
from producer.schedules.tick import tick
from rankmill.contract.job import JobOptions
from rankmill.ledger.jobs import Ledger
from rankmill.settings import settings
from tests.support.inputs import wait_for

BEGIN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
# 02:15 in Berlin.
FIRST, SECOND, THIRD = (datetime(2026, 11, day, 1, 15, tzinfo=UTC) for day in (21, 22, 23))


@dataclass
class Nights:
    """Schedules under test, with a clock that the test sets."""

    folder: Path
    ledger: Ledger
    store: Store
    time: datetime = BEGIN
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        self.output = self.folder / "out"

    def spec(self, **own: Any) -> ScheduleSpec:
        job = {"input_uri": str(self.folder / "in.parquet"), "model_id": "null", "shard_pairs": 5}
        job |= own.pop("job", {})
        own = {"cron": "15 2 * * *", "tz": "Europe/Berlin", **own}
        return schedule_spec("nightly", JobOptions(**job), str(self.output), own, "test")

    def add(self, **own: Any) -> ScheduleSpec:
        spec = self.spec(**own)
        make(self.store, changes(self.store.specs(), [spec]), self.time)
        return spec

    def tick(self, at: datetime) -> list[Firing]:
        self.time = at
        tick(self.ledger, settings())
        return self.store.firings("nightly")

    def ended(self, at: datetime) -> list[Firing]:
        """Wait until no job runs, and return the history."""
        wait_for(lambda: not any(f.state is FiringState.RUNNING for f in self.tick(at)))
        return self.store.firings("nightly")

    def judged(self, relevant: list[dict[str, Any]]) -> Path:
        """Write judgments by which the documents of these rows are relevant."""
        named = [(row["query_id"], row["doc_id"]) for row in relevant] or [("q0", "d0")]
        path = self.folder / "qrels"
        path.write_text("".join(f"{query} 0 {document} 1\n" for query, document in named))
        return path

    def latest(self) -> str | None:
        found = runs.read_latest(self.spec())
        return found and Path(found.output_uri).name


def states(firings: list[Firing]) -> list[str]:
    return [str(firing.state) for firing in firings]
