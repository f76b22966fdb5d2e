"""Name the files of a job's output and of its control folder.

The output, PARENT/NAME, holds what readers of datasets take for data, and the empty `_SUCCESS`:

part-00000.parquet …
_SUCCESS

All other files are in the control folder next to it, PARENT/_rankmill/NAME (`control_folder` says
why):

job.json  plan.json  shards/00000.json …  rejected/part-00000.parquet …
prepared/part-00000.parquet …  queries/00000 …  run.trec
known.json  known  hashes  scores/part-00000.parquet …
manifest.json  times.json  end.json  failure.json  cancelled.json  drift.json  report.html

Version 0.1 had that folder in the output, as NAME/_rankmill. Such outputs are read there, and
unfinished ones are finished there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from rankmill import storage
from rankmill.contract.base import parse
from rankmill.contract.job import JobRecord
from rankmill.output import control_folder

JOB_NAME = "job.json"
RUNS_NAME = "runs"
END_NAME = "end.json"
PART_NAME = re.compile(r"part-\d{5,}\.parquet")


def part_name(shard_index: int) -> str:
    """Return the file name of a shard's part, and of its rejects and pair scores."""
    return f"part-{shard_index:05d}.parquet"


@dataclass(frozen=True)
class OutputUris:
    """The places of a job's files, given its output folder."""

    uri: str

    @cached_property
    def control_uri(self) -> str:
        """The control folder; found once, at the first use."""
        has_job = self.read_job() is not None
        return str(vars(self)["control_uri"]) if has_job else self.new_control_uri

    @property
    def new_control_uri(self) -> str:
        """The control folder of a new job."""
        return control_folder.usable(self.uri)

    @property
    def old_control_uri(self) -> str:
        """The control folder of a job of version 0.1."""
        return control_folder.inside(self.uri)

    def read_job(self) -> JobRecord | None:
        """Return the job that was submitted here; its place decides `control_uri`."""
        known = vars(self).get("control_uri")
        folders = (self.new_control_uri, self.old_control_uri) if known is None else (known,)
        for folder in folders:
            place = storage.child(folder, JOB_NAME)
            content = storage.read_bytes(place)
            if content is not None:
                vars(self)["control_uri"] = folder
                return parse(JobRecord, content, place)
        return None

    def forget_control_uri(self) -> None:
        """Find the control folder again at its next use."""
        vars(self).pop("control_uri", None)

    def control_file(self, *names: str) -> str:
        """Return the place of these names, one below the other, in the control folder."""
        return storage.child(self.control_uri, *names)

    @property
    def success_uri(self) -> str:
        """The empty file that marks a successful job."""
        return storage.child(self.uri, "_SUCCESS")

    @property
    def trec_run_uri(self) -> str:
        """The ranking as a TREC run."""
        return self.control_file("run.trec")

    @property
    def report_uri(self) -> str:
        """The page that `rankmill.report` writes."""
        return self.control_file("report.html")

    @property
    def prepared_uri(self) -> str:
        """The folder of the pairs that the input was converted to."""
        return self.control_file("prepared")

    @property
    def known_uri(self) -> str:
        """The known scores of this job's rows, as records of `reuse.known_type`."""
        return self.control_file("known")

    @property
    def known_hashes_uri(self) -> str:
        """The hashes of this job's pairs, 16 bytes a row, kept for a later job."""
        return self.control_file("hashes")

    @property
    def scores_uri(self) -> str:
        """The folder of all scores by the hash of their pair, for reuse by a later job."""
        return self.control_file("scores")

    @property
    def runs_uri(self) -> str:
        """The folder of the runs on one machine (`local_run`); it outlives the job."""
        return storage.child(self.new_control_uri, RUNS_NAME)

    def part_uri(self, shard_index: int) -> str:
        """Return the place of a shard's part."""
        return storage.child(self.uri, part_name(shard_index))

    def rejected_uri(self, shard_index: int) -> str:
        """Return the place of a shard's rejects."""
        return self.control_file("rejected", part_name(shard_index))

    def queries_uri(self, shard_index: int) -> str:
        """Return the place of the digests of a shard's queries."""
        return self.control_file("queries", f"{shard_index:05d}")

    def shard_scores_uri(self, shard_index: int) -> str:
        """Return the place of a shard's scores in `scores_uri`."""
        return storage.child(self.scores_uri, part_name(shard_index))

    def shard_report_uri(self, shard_index: int) -> str:
        """Return the place of a shard's report."""
        return self.control_file("shards", f"{shard_index:05d}.json")
