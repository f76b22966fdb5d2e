"""The records of a job's outcome: shard reports, manifest, failure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from rankmill.contract.base import Contract, Since
from rankmill.contract.job import JobSpec
from rankmill.contract.reordering import Reordering
from rankmill.errors import RankmillError


class Scoring(Contract):
    """The model, engine path and device that scored a shard.

    Attributes:
        path: the engine's forward pass, such as packed.
        path_reason: why the path is not the packed one.
        deterministic: whether a pair's score has the same bits in any batch.
        device_reason: why `auto` chose no GPU, or not all of them.
        recipe: the name of the recipe that the pairs went through; None for the folder's own.
        recipe_sha256: its digest, with the job's prompt and templates.
        prompt: the instruction of recipe or job, for pairs without one of their own.
    """

    model_id: str
    model_revision: str | None
    weights_sha256: str
    tokenizer_sha256: str
    architecture: str
    path: str
    path_reason: str
    precision: str
    deterministic: bool
    device: str
    max_length: int
    activation: Literal["none", "sigmoid"]
    versions: dict[str, str]
    device_reason: str | None = None
    recipe: Annotated[str | None, Since(minor=1)] = None
    recipe_sha256: Annotated[str | None, Since(minor=1)] = None
    prompt: Annotated[str | None, Since(minor=2)] = None


class Agreement(Contract):
    """The agreement of a reduced precision with fp32 in ranking the job's first pairs."""

    precision: str
    n_pairs: int
    n_queries: int
    kendall_tau: float
    top10_overlap: float
    max_difference: float


class Histogram(Contract):
    """Counts of values in buckets; bucket i begins at `(first + i) * width`.

    Empty buckets at both ends are left out.
    """

    width: float
    first: int = 0
    counts: tuple[int, ...] = ()


class ShardReport(Contract):
    """A shard's report, written after its part: the commit point of a shard.

    `n_rows = n_scored + n_rejected` counts the input rows that the shard owns. `n_written` counts
    the rows of its part, fewer than scored with `top_k`.

    Attributes:
        n_duplicates: rows that took the score of an equal pair in their window.
        n_deaths: workers that died on the shard, as far as Redis knew.
        n_retries: starts that ended with a transient error.
        scores: histogram of the scores of all scored rows.
        lengths: histogram of their token counts.
        n_reused: scored rows that took an earlier job's score.
        no_reuse: why no score was reused although the job asks for it.
        no_agreement: why a reduced precision was not compared with fp32.
        logits: histogram of the logits of all scored rows.
        reordering: how its queries were reordered.
    """

    job_id: str
    shard_index: int
    n_rows: int
    n_scored: int
    n_rejected: int
    n_written: int
    n_query_groups: int
    n_tokens: int
    n_truncated: int
    rejects_by_reason: dict[str, int]
    part_bytes: int
    part_sha256: str
    rejected_sha256: str | None
    wall_s: float
    device_busy_s: float
    worker: str
    scoring: Scoring
    agreement: Agreement | None
    finished_at: datetime | None = None
    n_duplicates: int = 0
    n_deaths: int = 0
    n_retries: int = 0
    scores: Histogram | None = None
    lengths: Histogram | None = None
    n_reused: int = 0
    no_reuse: str | None = None
    no_agreement: str | None = None
    logits: Annotated[Histogram | None, Since(minor=1)] = None
    reordering: Annotated[Reordering | None, Since(minor=1)] = None


class PartSummary(Contract):
    """A part in the manifest."""

    name: str
    n_rows: int
    n_bytes: int
    sha256: str


class Reuse(Contract):
    """The scores that a job took from an earlier one; `n_reused + n_new` rows are scored.

    Attributes:
        source_uri: the earlier job's output, or the value of --reuse-from if there is no such job.
        refused: why no scores were reused, or not in all shards.
        remarks: differences that may change the last bits of a score.
    """

    source_uri: str
    source_job_id: str | None
    n_reused: int
    n_new: int
    refused: str | None
    remarks: tuple[str, ...] = ()


class Manifest(Contract):
    """`manifest.json`: counts, models, versions and checksums of a finished job.

    Attributes:
        title_col: the column that was placed before each document's text, if any.
    """

    job_id: str
    spec: JobSpec
    submitted_at: datetime
    finished_at: datetime
    n_rows: int
    n_scored: int
    n_rejected: int
    n_written: int
    n_query_groups: int
    n_tokens: int
    n_truncated: int
    rejects_by_reason: dict[str, int]
    scoring_s: float
    device_busy_s: float
    workers: tuple[str, ...]
    scoring: tuple[Scoring, ...]
    agreement: Agreement | None
    parts: tuple[PartSummary, ...]
    reuse: Reuse | None = None
    title_col: str | None = None
    no_agreement: str | None = None


class Times(Contract):
    """`times.json`: when the shards of a finished job ran.

    It is a file of its own, since earlier releases refuse a manifest with fields that they do not
    know.

    Attributes:
        started_at: when the first shard began.
        ended_at: when the last shard ended.
        covered_s: seconds in which at least one shard ran, in any worker.
    """

    job_id: str
    started_at: datetime
    ended_at: datetime
    covered_s: float


class Failure(Contract):
    """`failure.json`: why a job failed.

    Attributes:
        exit_code: the code of the error's class.
        quotes_input: whether the message may hold a row's text, and must stay with the rows.
    """

    job_id: str
    message: str
    exit_code: int
    shard_index: int | None
    failed_at: datetime
    quotes_input: bool = True

    @classmethod
    def of(cls, job_id: str, error: RankmillError, shard_index: int | None = None) -> Failure:
        """Return the failure of a job that ends now by an error."""
        return cls(
            job_id=job_id,
            message=str(error),
            exit_code=error.exit_code,
            shard_index=shard_index,
            failed_at=datetime.now(UTC),
            quotes_input=error.quotes_input,
        )


EndFile = Literal["_SUCCESS", "cancelled.json", "failure.json"]


class End(Contract):
    """`end.json`: which file ends a job, and the content of that file."""

    file: EndFile
    content: str
