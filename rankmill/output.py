"""What stands under an output, by name; storage is the truth about a job.

part-00000.parquet …
_SUCCESS
_rankmill/job.json  plan.json  shards/00000.json …  rejected/part-00000.parquet …
          prepared/part-00000.parquet …  queries/00000 …  run.trec
          known.json  known  hashes  scores/part-00000.parquet …
          manifest.json  failure.json  cancelled.json  drift.json  report.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rankmill import storage
from rankmill.contract import Contract, ContractT, parse
from rankmill.drift import Drift
from rankmill.errors import ClaimLost, JobUnknown
from rankmill.known import KnownScores
from rankmill.lifecycle import JobState
from rankmill.results import Failure, Manifest, ShardReport
from rankmill.spec import JobRecord, JobSpec, Plan, ShardSpec

_OWN_FOLDER = "_rankmill"
_SUCCESS = "_SUCCESS"
_OF_THE_END = ("manifest.json", "failure.json", "cancelled.json", "report.html")
_PART = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True)
class Output:
    """The output folder of one job."""

    uri: str

    def load_job(self) -> Job:
        """The planned job of this folder.

        Raises:
            JobUnknown: none was planned, or its plan is not its own.
        """
        record, plan = self.read_job(), self.read_plan()
        if record is None or plan is None or record.job_id != plan.job_id:
            raise JobUnknown(f"{self.uri}: no job was planned in this folder")
        return Job(record, plan)

    @property
    def trec_run_uri(self) -> str:
        return self._own("run.trec")

    @property
    def report_uri(self) -> str:
        """The page that shows what the job was, `rankmill.report`."""
        return self._own("report.html")

    @property
    def prepared_uri(self) -> str:
        """The folder of the pairs that the input was turned into, where it was."""
        return self._own("prepared")

    @property
    def known_uri(self) -> str:
        """An earlier job's scores for rows of this one, as `known.pack` has them, 8 bytes a row."""
        return self._own("known")

    @property
    def known_hashes_uri(self) -> str:
        """The hashes of this job's pairs, where it keeps them for a later one, 16 bytes a row."""
        return self._own("hashes")

    @property
    def scores_uri(self) -> str:
        """The folder of all scores by their pair's hash, which a later job may reuse."""
        return self._own("scores")

    def part_uri(self, shard_index: int) -> str:
        return storage.child(self.uri, part_name(shard_index))

    def rejected_uri(self, shard_index: int) -> str:
        return self._own("rejected", part_name(shard_index))

    def queries_uri(self, shard_index: int) -> str:
        """Digests of the queries that a shard held."""
        return self._own("queries", f"{shard_index:05d}")

    def shard_scores_uri(self, shard_index: int) -> str:
        return storage.child(self.scores_uri, part_name(shard_index))

    def read_job(self) -> JobRecord | None:
        return self._read(JobRecord, "job.json")

    def holds(self, job_id: str) -> bool:
        """Whether this is the output of that job, and not of another by now or of none."""
        record = self.read_job()
        return record is not None and record.job_id == job_id

    def write_job(self, record: JobRecord) -> None:
        self._write(record, "job.json")

    def read_plan(self) -> Plan | None:
        return self._read(Plan, "plan.json")

    def write_plan(self, plan: Plan) -> None:
        self._write(plan, "plan.json")

    def read_manifest(self) -> Manifest | None:
        return self._read(Manifest, "manifest.json")

    def write_manifest(self, manifest: Manifest) -> None:
        self._write(manifest, "manifest.json")

    def read_drift(self) -> Drift | None:
        """How the result differs from an earlier run's, where a schedule has compared them."""
        return self._read(Drift, "drift.json")

    def write_drift(self, drift: Drift) -> None:
        self._write(drift, "drift.json")

    def read_known(self) -> KnownScores | None:
        return self._read(KnownScores, "known.json")

    def write_known(self, known: KnownScores) -> None:
        self._write(known, "known.json")

    def read_failure(self) -> Failure | None:
        return self._read(Failure, "failure.json")

    def write_failure(self, failure: Failure) -> Failure:
        """Note why the job ended; of several at once the first stands, and is returned."""
        if storage.write_bytes_once(self._own("failure.json"), failure.to_json()):
            return failure
        return self.read_failure() or failure

    def mark_cancelled(self) -> None:
        storage.write_bytes(self._own("cancelled.json"), b"{}\n")

    def is_cancelled(self) -> bool:
        return storage.exists(self._own("cancelled.json"))

    def reopen(self) -> None:
        """Take back that the job has ended; its parts and reports stay."""
        storage.remove(storage.child(self.uri, _SUCCESS))
        for name in _OF_THE_END:
            storage.remove(self._own(name))

    @contextmanager
    def kept_on_error(self, shards: Iterable[int] = ()) -> Iterator[None]:
        """Put back what says how the job ended, and reports of these shards, if the block fails."""
        places = [
            storage.child(self.uri, _SUCCESS),
            *(self._own(name) for name in _OF_THE_END),
            *(self._own("shards", _report_name(shard_index)) for shard_index in shards),
        ]
        before = {place: storage.read_bytes(place) for place in places}
        try:
            yield
        except BaseException:
            # The mark of success last, as when the job ended.
            for place in reversed(places):
                content = before[place]
                if content is not None:
                    storage.write_bytes_once(place, content)
            raise

    def forget_shard(self, shard_index: int) -> None:
        """Remove a shard's report, so that it is run again; its part stays until then."""
        storage.remove(self._own("shards", _report_name(shard_index)))

    def read_report(self, shard_index: int) -> ShardReport | None:
        return self._read(ShardReport, "shards", _report_name(shard_index))

    def commit(self, report: ShardReport) -> ShardReport:
        """Write a shard's report unless one stands already, as after a race; the one that stands.

        Raises:
            ClaimLost: another job's stands there.
        """
        place = self._own("shards", _report_name(report.shard_index))
        if storage.write_bytes_once(place, report.to_json()):
            return report
        standing = self.read_report(report.shard_index)
        if standing is None or standing.job_id != report.job_id:
            raise ClaimLost(f"{place} was written by another job or is being removed")
        return standing

    def reported_shards(self) -> set[int]:
        """The shards that have a report, from one listing."""
        listed = storage.names(self._own("shards"))
        return {int(name[:-5]) for name in listed if re.fullmatch(r"\d{5,}\.json", name)}

    def reports(self, job_id: str) -> Iterator[ShardReport]:
        """The job's reports in the order of its shards."""
        for shard_index in sorted(self.reported_shards()):
            report = self.read_report(shard_index)
            if report is not None and report.job_id == job_id:
                yield report

    def part_names(self) -> set[str]:
        return {name for name in storage.names(self.uri) if _PART.fullmatch(name)}

    def mark_success(self) -> None:
        storage.write_bytes(storage.child(self.uri, _SUCCESS), b"")

    def is_success(self) -> bool:
        return storage.exists(storage.child(self.uri, _SUCCESS))

    def has_ended(self) -> bool:
        """Whether the job is over, well or not; unlike `state`, without a listing."""
        return self.is_success() or self.is_cancelled() or self.read_failure() is not None

    def state(self) -> JobState:
        """Where the job stands, from storage alone.

        Raises:
            JobUnknown: no job was ever submitted to this folder.
        """
        if self.is_success():
            manifest = self.read_manifest()
            rejected = manifest is not None and manifest.n_rejected > 0
            return JobState.SUCCEEDED_WITH_REJECTS if rejected else JobState.SUCCEEDED
        if self.is_cancelled():
            return JobState.CANCELLED
        if self.read_failure():
            return JobState.FAILED
        plan = self.read_plan()
        if plan is not None:
            complete = len(self.reported_shards()) == plan.n_shards
            return JobState.FINALIZING if complete else JobState.RUNNING
        record = self.read_job()
        if record is not None:
            return JobState.PREPARING if record.prepares else JobState.SUBMITTED
        raise JobUnknown(f"{self.uri}: no job was submitted to this folder")

    def foreign_names(self) -> list[str]:
        """What no job of ours has written; without a job, parts too are somebody else's."""
        has_job = self.read_job() is not None
        return [name for name in storage.names(self.uri) if not _is_ours(name, has_job=has_job)]

    def remove_result(self) -> None:
        """Remove all of an earlier job.

        Its mark of success goes first and its reports before its parts; what tells whose the parts
        are goes last, so that one who dies half way can be followed.
        """
        for first in (storage.child(self.uri, _SUCCESS), self._own("shards")):
            storage.remove(first)
        ours = [name for name in storage.names(self.uri) if _is_ours(name, has_job=True)]
        for name in sorted(ours, key=lambda name: name == _OWN_FOLDER):
            storage.remove(storage.child(self.uri, name))

    def remove_strays(self, n_shards: int) -> None:
        """Remove what no shard of the job has published: parts beyond its plan, temporaries."""
        for name in self.part_names() - {part_name(n) for n in range(n_shards)}:
            storage.remove(storage.child(self.uri, name))
        storage.remove_unfinished(self.uri)

    def _own(self, *names: str) -> str:
        return storage.child(self.uri, _OWN_FOLDER, *names)

    def _read(self, contract: type[ContractT], *names: str) -> ContractT | None:
        content = storage.read_bytes(self._own(*names))
        return None if content is None else parse(contract, content, self._own(*names))

    def _write(self, content: Contract, *names: str) -> None:
        storage.write_bytes(self._own(*names), content.to_json())


@dataclass(frozen=True)
class Job:
    """A planned job: what was asked for, and how it is cut."""

    record: JobRecord
    plan: Plan

    @property
    def job_id(self) -> str:
        return self.record.job_id

    @property
    def spec(self) -> JobSpec:
        return self.record.spec

    @property
    def output(self) -> Output:
        return Output(self.spec.output_uri)

    @property
    def is_clustered(self) -> bool:
        """Whether its preparation has brought each query's rows together."""
        is_prepared = any(
            storage.lies_in(f.uri, self.output.prepared_uri) for f in self.plan.files[:1]
        )
        return is_prepared and (self.spec.layout != "lists" or self.spec.cluster)

    def shard(self, shard_index: int) -> ShardSpec:
        return self.plan.shard(shard_index, self.spec.output_uri)


def part_name(shard_index: int) -> str:
    return f"part-{shard_index:05d}.parquet"


def _report_name(shard_index: int) -> str:
    return f"{shard_index:05d}.json"


def _is_ours(name: str, *, has_job: bool) -> bool:
    result = name == _SUCCESS or _PART.fullmatch(name) is not None
    return name == _OWN_FOLDER or storage.is_temporary(name) or (has_job and result)
