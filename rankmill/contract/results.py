"""What comes of a job: the reports of its shards, its manifest, why it failed."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from rankmill.contract.base import Contract
from rankmill.contract.job import JobSpec


class Scoring(Contract):
    """What scored a shard: the model's exact weights and the way that was taken through it.

    `path_reason` says why it is not the packed one; `deterministic` whether a pair gets the same
    bits whatever pairs it is scored with; `device_reason` why no GPU was used, or not all, where
    `auto` was to choose.
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


class Agreement(Contract):
    """How a reduced precision ranked the job's first pairs, compared with fp32."""

    precision: str
    n_pairs: int
    n_queries: int
    kendall_tau: float
    top10_overlap: float
    max_difference: float


class Histogram(Contract):
    """How many values lie in each bucket, which begins at `(first + i) * width`.

    Empty buckets at both ends are left out.
    """

    width: float
    first: int = 0
    counts: tuple[int, ...] = ()


class ShardReport(Contract):
    """Written after its part: the commit point of a shard.

    `n_rows = n_scored + n_rejected` counts the input rows that the shard owns; `n_written` are the
    rows of the part, fewer than scored where `top_k` cuts.

    Attributes:
        n_duplicates: rows that took the score of an equal pair beside them.
        n_deaths: workers that died over the shard, as far as Redis remembered.
        n_retries: starts that ended with an error that passed.
        scores: of all rows that were scored.
        lengths: their tokens.
        n_reused: rows of those scored that took an earlier job's score.
        no_reuse: why none may, where that was asked for.
        no_agreement: why a reduced precision was not compared with fp32.
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


class PartSummary(Contract):
    """A part as the manifest lists it."""

    name: str
    n_rows: int
    n_bytes: int
    sha256: str


class Reuse(Contract):
    """What a job took from an earlier one; `n_reused + n_new` have a score.

    Attributes:
        source_uri: the earlier job's output, or what was asked for where there is none.
        refused: why nothing was taken, or not for all shards.
        remarks: what may make a reused score differ from a new one in its last bits.
    """

    source_uri: str
    source_job_id: str | None
    n_reused: int
    n_new: int
    refused: str | None
    remarks: tuple[str, ...] = ()


class Manifest(Contract):
    """What a finished job was made of.

    Attributes:
        title_col: the column that was joined before each document's text, if there was one.
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


class Failure(Contract):
    """`failure.json`: why a job ended without success; `exit_code` as the error's class has it.

    `quotes_input` says that the message may hold a row's text, so that it stays where the rows are.
    """

    job_id: str
    message: str
    exit_code: int
    shard_index: int | None
    failed_at: datetime
    quotes_input: bool = True
