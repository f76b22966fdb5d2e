"""Name the files of a job; storage is the truth about it.

The output, PARENT/NAME, holds what readers of datasets take for data, and the empty `_SUCCESS`:

part-00000.parquet …
_SUCCESS

All else is in the control folder next to it, PARENT/_rankmill/NAME (`control_folder` says why):

job.json  plan.json  shards/00000.json …  rejected/part-00000.parquet …
prepared/part-00000.parquet …  queries/00000 …  run.trec
known.json  known  hashes  scores/part-00000.parquet …
manifest.json  failure.json  cancelled.json  drift.json  report.html

Version 0.1 had that folder in the output, as NAME/_rankmill; such outputs are read, and unfinished
ones are finished, where they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from rankmill import storage
from rankmill.contract.base import Contract, ContractT, parse
from rankmill.contract.drift import Drift
from rankmill.contract.job import JobRecord, JobSpec, Plan, ShardSpec
from rankmill.contract.job_state import JobState
from rankmill.contract.results import Failure, Manifest, ShardReport
from rankmill.contract.reuse import KnownScores
from rankmill.errors import ClaimLost, JobUnknown
from rankmill.output import control_folder

_JOB = "job.json"
_SUCCESS = "_SUCCESS"
_RUNS = "runs"
_OF_THE_END = ("manifest.json", "failure.json", "cancelled.json", "report.html")
_PART = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True)
class Output:
    """The output folder of one job, and its control folder."""

    uri: str

    @cached_property
    def control_uri(self) -> str:
        """The folder of all that is not the result; found once, at the first use."""
        is_found = self.read_job() is not None
        return str(vars(self)["control_uri"]) if is_found else self._beside

    @property
    def _beside(self) -> str:
        return control_folder.usable(self.uri)

    @property
    def _inside(self) -> str:
        return control_folder.inside(self.uri)

    def load_job(self) -> Job:
        """The planned job of this folder.

        Raises:
            JobUnknown: none was planned, or its plan is not its own.
        """
        record, plan = self.read_job(), self.read_plan()
        if record is None or plan is None or record.job_id != plan.job_id:
            raise self.no_job("planned in")
        return Job(record, plan, self)

    def no_job(self, done: str = "submitted to") -> JobUnknown:
        """The error for an output without a job, which says more where its result is here."""
        if self.is_success() or self.part_names():
            return JobUnknown(
                f"{self.uri} has a result, but its control folder {self._beside} is missing; "
                "move or copy it together with the output"
            )
        return JobUnknown(f"{self.uri}: no job was {done} this folder")

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

    @property
    def runs_uri(self) -> str:
        """The folder of who ran the job on one machine, `local_run`; it outlives the job."""
        return storage.child(self._beside, _RUNS)

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
        """The job that was submitted here; it also decides where the control folder is."""
        found = vars(self).get("control_uri")
        for folder in (self._beside, self._inside) if found is None else (found,):
            place = storage.child(folder, _JOB)
            content = storage.read_bytes(place)
            if content is not None:
                vars(self)["control_uri"] = folder
                return parse(JobRecord, content, place)
        return None

    def holds(self, job_id: str) -> bool:
        """Whether this is the output of that job, and not of another by now or of none."""
        record = self.read_job()
        return record is not None and record.job_id == job_id

    def write_job(self, record: JobRecord) -> None:
        self._write(record, _JOB)

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
        content = {"cancelled_at": datetime.now(UTC).isoformat()}
        storage.write_bytes(self._own("cancelled.json"), json.dumps(content).encode() + b"\n")

    def cancelled_at(self) -> datetime | None:
        """When the job was cancelled; None where it was not, or by a release that kept no time."""
        content = json.loads(storage.read_bytes(self._own("cancelled.json")) or b"{}")
        return datetime.fromisoformat(content["cancelled_at"]) if content else None

    def is_cancelled(self) -> bool:
        return storage.exists(self._own("cancelled.json"))

    def reopen(self) -> None:
        """Take back that the job has ended; parts stay, and the reports of those that are here."""
        storage.remove(storage.child(self.uri, _SUCCESS))
        for name in _OF_THE_END:
            storage.remove(self._own(name))
        reported = self.reported_shards()
        here = self.part_names() if reported else set()
        for shard_index in reported:
            if part_name(shard_index) not in here:
                self.forget_shard(shard_index)

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

    def lost_parts(self) -> list[str]:
        """The parts that were written and are not here any more."""
        manifest = self.read_manifest()
        if manifest is not None:
            written = {part.name for part in manifest.parts}
        else:
            written = {part_name(shard_index) for shard_index in self.reported_shards()}
        return sorted(written - self.part_names()) if written else []

    def loss(self) -> str:
        """One line about `lost_parts`; empty where there are none."""
        lost = self.lost_parts()
        if not lost:
            return ""
        named = f"{lost[0]} and {len(lost) - 1} more parts were" if lost[1:] else f"{lost[0]} was"
        again = "the same command again, or `rankmill resume`, scores their rows again"
        return f"{named} removed from {self.uri}; {again}"

    def changed_part(self) -> str | None:
        """A part of the finished job that is not as long as it was written, if there is one."""
        manifest = self.read_manifest()
        if manifest is None:
            return None
        sizes = {file.uri: file.size_bytes for file in storage.list_files(self.uri, (".parquet",))}
        places = {part.name: storage.child(self.uri, part.name) for part in manifest.parts}
        changed = (
            part.name
            for part in manifest.parts
            if sizes.get(places[part.name], part.n_bytes) != part.n_bytes
        )
        return next(changed, None)

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

    def foreign_names(self) -> list[str]:
        """The names in the output that no job wrote; without a job, parts too are foreign."""
        has_job = self.read_job() is not None
        return [name for name in storage.names(self.uri) if not self._is_ours(name, has_job)]

    def _is_ours(self, name: str, has_job: bool) -> bool:
        if name == storage.CONTROL_FOLDER:  # of 0.1; or of outputs in this one, which are foreign
            inside = storage.names(self._inside)
            return not inside or _JOB in inside
        result = name == _SUCCESS or _PART.fullmatch(name) is not None
        return storage.is_temporary(name) or (has_job and result)

    def remove_result(self) -> None:
        """Remove all of an earlier job.

        Its mark of success goes first and its reports before its parts. The record that says whose
        the parts are goes last, so that another can go on where this one dies.
        """
        for first in (storage.child(self.uri, _SUCCESS), self._own("shards")):
            storage.remove(first)
        ours = [name for name in storage.names(self.uri) if self._is_ours(name, has_job=True)]
        for name in ours:
            if name != storage.CONTROL_FOLDER:
                storage.remove(storage.child(self.uri, name))
        folders = {self._beside, *([self._inside] if storage.CONTROL_FOLDER in ours else [])}
        for folder in folders:
            for name in sorted(storage.names(folder), key=lambda name: name == _JOB):
                if name != _RUNS:  # which may be of this process
                    storage.remove(storage.child(folder, name))
            if not storage.names(folder):
                storage.remove(folder)
        storage.remove_empty_folder(self._beside.rpartition("/")[0])
        vars(self).pop("control_uri", None)

    def remove_strays(self, n_shards: int) -> None:
        """Remove what no shard of the job has published: parts beyond its plan, temporaries."""
        for name in self.part_names() - {part_name(n) for n in range(n_shards)}:
            storage.remove(storage.child(self.uri, name))
        for folder in (self.uri, self.control_uri):
            storage.remove_unfinished(folder)

    def _own(self, *names: str) -> str:
        return storage.child(self.control_uri, *names)

    def _read(self, contract: type[ContractT], *names: str) -> ContractT | None:
        content = storage.read_bytes(self._own(*names))
        return None if content is None else parse(contract, content, self._own(*names))

    def _write(self, content: Contract, *names: str) -> None:
        storage.write_bytes(self._own(*names), content.to_json())


@dataclass(frozen=True)
class Job:
    """A planned job: what was asked for, and how it is cut.

    Attributes:
        found_in: the output that it was read from, which may have been moved; else the spec's.
    """

    record: JobRecord
    plan: Plan
    found_in: Output | None = None

    @property
    def job_id(self) -> str:
        return self.record.job_id

    @property
    def spec(self) -> JobSpec:
        return self.record.spec

    @cached_property
    def output(self) -> Output:
        return self.found_in or Output(self.spec.output_uri)

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
