"""Read and write a job's records; storage is the truth about a job."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from rankmill import storage
from rankmill.contract.base import Contract, ContractT, parse
from rankmill.contract.drift import Drift
from rankmill.contract.job import JobRecord, JobSpec
from rankmill.contract.job_state import JobState
from rankmill.contract.plan import Plan, ShardSpec
from rankmill.contract.results import Failure, Manifest, ShardReport, Times
from rankmill.contract.reuse import KnownScores
from rankmill.errors import ClaimLost, HostUnfit, JobUnknown
from rankmill.output import ending
from rankmill.output.uris import PART_NAME, OutputUris, part_name

_N_READ_AT_ONCE = 8


@dataclass(frozen=True)
class Output(OutputUris):
    """The output folder of one job, and its control folder."""

    def load_job(self) -> Job:
        """Return the planned job of this folder.

        Raises:
            JobUnknown: no job is planned here, or the plan belongs to another job.
        """
        record, plan = self.read_job(), self.read_plan()
        if record is None or plan is None or record.job_id != plan.job_id:
            raise self.no_job("planned in")
        return Job(record, plan, self)

    def no_job(self, verb: str = "submitted to") -> JobUnknown:
        """Return the error for an output without a job."""
        if self.is_success() or self.part_names():
            return JobUnknown(
                f"{self.uri} has a result, but its control folder {self.new_control_uri} is "
                "missing; move or copy it together with the output"
            )
        return JobUnknown(f"{self.uri}: no job was {verb} this folder")

    def unseen(self, job_id: str) -> HostUnfit:
        """Return the error of a worker that does not find a job of its queue in this folder."""
        return HostUnfit(
            f"{self.uri} does not hold job {job_id}; every worker must see the same folder: share "
            "the disk, or use s3://"
        )

    def holds(self, job_id: str) -> bool:
        """Return whether the job of this output has that id."""
        record = self.read_job()
        return record is not None and record.job_id == job_id

    def write_job(self, record: JobRecord) -> None:
        """Write `job.json`."""
        self._write(record, "job.json")

    def read_plan(self) -> Plan | None:
        """Read `plan.json`; None before the job is planned."""
        return self._read(Plan, self.control_file("plan.json"))

    def write_plan(self, plan: Plan) -> None:
        """Write `plan.json`."""
        self._write(plan, "plan.json")

    def read_manifest(self) -> Manifest | None:
        """Read `manifest.json`; None before the job is finished."""
        return self._read(Manifest, self.control_file("manifest.json"))

    def write_manifest(self, manifest: Manifest) -> None:
        """Write `manifest.json`."""
        self._write(manifest, "manifest.json")

    def read_times(self) -> Times | None:
        """Read `times.json`; None for a job of an earlier release."""
        return self._read(Times, self.control_file("times.json"))

    def write_times(self, times: Times) -> None:
        """Write `times.json`."""
        self._write(times, "times.json")

    def read_drift(self) -> Drift | None:
        """Read `drift.json`; None unless a schedule has compared the result with an earlier one."""
        return self._read(Drift, self.control_file("drift.json"))

    def write_drift(self, drift: Drift) -> None:
        """Write `drift.json`."""
        self._write(drift, "drift.json")

    def read_known(self) -> KnownScores | None:
        """Read `known.json`; None if no scores are reused."""
        return self._read(KnownScores, self.control_file("known.json"))

    def write_known(self, known: KnownScores) -> None:
        """Write `known.json`."""
        self._write(known, "known.json")

    def read_failure(self) -> Failure | None:
        """Read `failure.json`; None if the job has not failed."""
        return self._read(Failure, self.control_file("failure.json"))

    def write_failure(self, failure: Failure) -> Failure | None:
        """Write why the job failed unless it has ended, and return what is written.

        Return None if it had another end before.
        """
        is_failed = ending.decide(self, "failure.json", failure.to_json())
        return (self.read_failure() or failure) if is_failed else None

    def mark_cancelled(self) -> bool:
        """Write `cancelled.json`; return False if the job had another end before."""
        content = {"cancelled_at": datetime.now(UTC).isoformat()}
        return ending.decide(self, "cancelled.json", json.dumps(content).encode() + b"\n")

    def cancelled_at(self) -> datetime | None:
        """Return when the job was cancelled; None if it was not, or by a release without times."""
        content = storage.read_bytes(self.control_file("cancelled.json")) or b"{}"
        try:
            return datetime.fromisoformat(json.loads(content)["cancelled_at"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def is_cancelled(self) -> bool:
        """Return whether the job was cancelled."""
        return storage.exists(self.control_file("cancelled.json"))

    def forget_shard(self, shard_index: int) -> None:
        """Remove a shard's report, so that it runs again; its part stays until then."""
        storage.remove(self.shard_report_uri(shard_index))

    def read_report(self, shard_index: int) -> ShardReport | None:
        """Read a shard's report; None before the shard is done."""
        return self._read(ShardReport, self.shard_report_uri(shard_index))

    def commit(self, report: ShardReport) -> ShardReport:
        """Write a shard's report unless there is one already, and return what is written.

        Raises:
            ClaimLost: the report there is another job's.
        """
        place = self.shard_report_uri(report.shard_index)
        if storage.write_bytes_once(place, report.to_json()):
            return report
        written = self.read_report(report.shard_index)
        if written is None or written.job_id != report.job_id:
            raise ClaimLost(f"{place} was written by another job or is being removed")
        return written

    def reported_shards(self) -> set[int]:
        """Return the shards that have a report, from one listing."""
        listed = storage.names(self.control_file("shards"))
        return {int(name[:-5]) for name in listed if re.fullmatch(r"\d{5,}\.json", name)}

    def reports(self, job_id: str) -> Iterator[ShardReport]:
        """Read the reports of a job in the order of its shards."""
        with ThreadPoolExecutor(_N_READ_AT_ONCE) as pool:
            for report in pool.map(self.read_report, sorted(self.reported_shards())):
                if report is not None and report.job_id == job_id:
                    yield report

    def part_names(self) -> set[str]:
        """Return the names of the parts, from one listing."""
        return {name for name in storage.names(self.uri) if PART_NAME.fullmatch(name)}

    def lost_parts(self) -> list[str]:
        """Return the names of the parts that were written and have been removed since."""
        manifest = self.read_manifest()
        if manifest is not None:
            written = {part.name for part in manifest.parts}
        else:
            written = {part_name(shard_index) for shard_index in self.reported_shards()}
        return sorted(written - self.part_names()) if written else []

    def loss(self) -> str:
        """Return one line about `lost_parts`; empty if there are none."""
        lost = self.lost_parts()
        if not lost:
            return ""
        parts = f"{lost[0]} and {len(lost) - 1} more parts were" if lost[1:] else f"{lost[0]} was"
        again = "the same command again, or `rankmill resume`, scores their rows again"
        return f"{parts} removed from {self.uri}; {again}"

    def changed_part(self) -> str | None:
        """Return the name of a part whose length differs from the manifest's, if there is one.

        A part that was removed does not count.
        """
        manifest = self.read_manifest()
        if manifest is None:
            return None
        sizes = {file.uri: file.size_bytes for file in storage.list_files(self.uri, (".parquet",))}
        for part in manifest.parts:
            if sizes.get(storage.child(self.uri, part.name), part.n_bytes) != part.n_bytes:
                return part.name
        return None

    def mark_success(self) -> bool:
        """Write `_SUCCESS`; return False if the job had another end before."""
        return ending.decide(self, "_SUCCESS")

    def is_success(self) -> bool:
        """Return whether `_SUCCESS` is there."""
        return storage.exists(self.success_uri)

    def has_ended(self) -> bool:
        """Return whether the job is over, well or not; unlike `state`, without a listing."""
        return self.is_success() or self.is_cancelled() or self.read_failure() is not None

    def state(self) -> JobState:
        """Return the job's state from storage alone.

        Raises:
            JobUnknown: no job was submitted to this folder.
        """
        is_success = self.is_success()
        if is_success and self.read_job() is None:
            raise self.no_job()
        if is_success and not self.lost_parts():
            manifest = self.read_manifest()
            rejected = manifest is not None and manifest.n_rejected > 0
            return JobState.SUCCEEDED_WITH_REJECTS if rejected else JobState.SUCCEEDED
        if self.is_cancelled():
            return JobState.CANCELLED
        if is_success or self.read_failure():
            return JobState.FAILED
        plan = self.read_plan()
        if plan is not None:
            if len(self.reported_shards()) < plan.n_shards:
                return JobState.RUNNING
            return JobState.FAILED if self.lost_parts() else JobState.FINALIZING
        record = self.read_job()
        if record is not None:
            return JobState.PREPARING if record.prepares else JobState.SUBMITTED
        raise self.no_job()

    def _read(self, contract: type[ContractT], place: str) -> ContractT | None:
        content = storage.read_bytes(place)
        return None if content is None else parse(contract, content, place)

    def _write(self, content: Contract, name: str) -> None:
        storage.write_bytes(self.control_file(name), content.to_json())


@dataclass(frozen=True)
class Job:
    """A planned job: its spec and its shards.

    Attributes:
        found_in: the output it was read from, which may have been moved; None means the spec's.
    """

    record: JobRecord
    plan: Plan
    found_in: Output | None = None

    @property
    def job_id(self) -> str:
        """The id that the job got at its submission."""
        return self.record.job_id

    @property
    def spec(self) -> JobSpec:
        """The submission."""
        return self.record.spec

    @cached_property
    def output(self) -> Output:
        """The output to read and write."""
        return self.found_in or Output(self.spec.output_uri)

    @property
    def is_clustered(self) -> bool:
        """Whether its preparation grouped the rows by query."""
        is_prepared = any(
            storage.lies_in(f.uri, self.output.prepared_uri) for f in self.plan.files[:1]
        )
        return is_prepared and (self.spec.layout != "lists" or self.spec.cluster)

    def shard(self, shard_index: int) -> ShardSpec:
        """Return a shard as its message carries it."""
        return self.plan.shard(shard_index, self.spec.output_uri)
