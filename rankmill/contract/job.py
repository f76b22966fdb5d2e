"""The wire contract: what a job, its plan and a shard are, frozen and versioned."""

from __future__ import annotations

import base64
import hashlib
import operator
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from rankmill.contract.base import Contract, JobId, OutputUri, Revision
from rankmill.storage import FileStat

Activation = Literal["auto", "none", "sigmoid"]
Layout = Literal["pairs", "lists", "run"]
InputRole = Literal["input", "queries", "corpus"]
Partition = dict[str, int | str | None]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "fp8"]

# The columns that a part adds to those it keeps, in this order.
RESULT_COLUMNS = ("logit", "score", "rank", "n_tokens", "truncated")
# Of lists, the column that holds a query's ranked candidates.
CANDIDATES_COLUMN = "candidates"

REJECT_COLUMNS = ("file", "row", "reason")

# What a prepared dataset tells of each pair: why it cannot be scored, and where it came from.
REFUSAL_COLUMN = "_refusal"
ORIGIN_COLUMNS = ("_file", "_row")
STATUS_COLUMNS = (REFUSAL_COLUMN, *ORIGIN_COLUMNS)

_LATER_OPTIONS = ("input_version", "queries_version", "corpus_version", "title_col")


class JobOptions(Contract):
    """A job without its sink: source, model, options; the command line's flags by those names."""

    input_uri: str = Field(min_length=1)
    input_version: str | None = Field(
        None,
        min_length=1,
        description="Version or time of a Delta table, or snapshot, branch or tag of an Iceberg "
        "table, that INPUT is [newest]",
    )
    model_id: str = Field(
        "BAAI/bge-reranker-v2-m3",
        min_length=1,
        max_length=4096,
        description="Hub id, model folder, or demo",
    )
    model_revision: Revision | None = Field(None, description="Revision of a hub model")
    layout: Layout = Field(
        "pairs",
        description="What a row of INPUT is: a candidate (pairs), a query with its list of "
        "candidates (lists), or ids alone (run, with --queries and --corpus)",
    )
    queries: str | None = Field(
        None, description="Queries of a run: Parquet, JSONL as BEIR has it, or TSV"
    )
    corpus: str | None = Field(None, description="Documents of a run, in the same forms")
    queries_version: str | None = Field(
        None, min_length=1, description="As --input-version, of a table that --queries is [newest]"
    )
    corpus_version: str | None = Field(
        None, min_length=1, description="As --input-version, of a table that --corpus is [newest]"
    )
    query_col: str = Field("query", description="Column with the query's text")
    document_col: str = Field("document", description="Column with the document's text")
    title_col: str | None = Field(
        None,
        description="Column with the document's title, which goes before its text; none: without "
        "[title if there]",
    )
    query_id_col: str | None = Field(
        None, description="Column that names the query group [query_id if there, else the text]"
    )
    doc_id_col: str | None = Field(
        None, description="Column that names the document [doc_id if there]"
    )
    keep_cols: tuple[str, ...] | None = Field(
        None,
        description="Input columns to keep, comma-separated [all; no texts when ids are there]",
    )
    explode: bool = Field(
        False, description="Of lists, write a row for each candidate, not a list for each query"
    )
    trec_run: bool = Field(
        False,
        description="Write run.trec too, next to the report, which trec_eval and ir-measures read",
    )
    cluster: bool = Field(
        False, description="Bring each query's rows together first, which are scattered in INPUT"
    )
    duplicates: Literal["fail", "keep"] = Field(
        "fail", description="When a query names a document twice"
    )
    damaged: Literal["fail", "reject"] = Field(
        "fail", description="When a row group cannot be read: fail, or reject its rows"
    )
    top_k: int | None = Field(None, ge=1, description="Rows to write of each query [all]")
    max_length: int | None = Field(
        None, ge=8, description="Tokens a pair is cut to [as long as the model takes]"
    )
    precision: Precision = Field("auto", description="Number format of the forward pass")
    activation: Activation = Field("auto", description="From logit to score [as the model says]")
    max_batch_tokens: int | None = Field(None, ge=1, description="Tokens in a batch [found out]")
    shard_pairs: int | None = Field(
        None, ge=1, description="Rows in a shard [a 32nd of the input, 1,024 to 32,768]"
    )
    priority: int = Field(
        5, ge=1, le=9, description="Share of the workers: 9 gets three times what 3 gets"
    )
    max_reject_rate: float = Field(
        0.01, ge=0, le=1, description="Share of rows that may be rejected before the job fails"
    )
    reuse_from: str | None = Field(
        None,
        min_length=1,
        description="Output of an earlier job, whose scores of equal pairs are taken over, or "
        "latest: the last success that latest.json beside OUTPUT names",
    )
    for_reuse: bool = Field(
        False, description="Keep every score by its pair's hash, about 22 bytes a row, to be reused"
    )


class JobSpec(JobOptions):
    """One submission."""

    output_uri: OutputUri


class InputFile(Contract):
    """A file as it was when the plan was made; a later change is noticed by size and state.

    Attributes:
        state: time of change of a local file, ETag of an object.
        partition: columns that it does not store: those that its path gives, as `…/lang=de/…` does,
            numbers where all are, or null; null for those that other files of the input store.
        names: of columns that it stores by another name than the input has them by, that name.
    """

    uri: str
    n_rows: int
    size_bytes: int
    state: str
    partition: Partition = Field(default_factory=dict)
    names: dict[str, str] = Field(  # left out where empty, so that jobs keep their names
        default_factory=dict, exclude_if=operator.not_
    )
    role: InputRole = "input"

    @property
    def stat(self) -> FileStat:
        return FileStat(self.uri, self.size_bytes, self.state)


class Columns(Contract):
    """Which input columns play which part, resolved against the schema.

    Attributes:
        query_id: the column that names a query group, or None where the query text does.
        kept: input column to its name in the parts, in order; the same name unless it would
            collide with a result column (`score` becomes `input_score`).
        candidates: of lists, the input columns that tell of a candidate and not of its query;
            None where a part has a row for each candidate.
        title: the column that is joined before each document's text.
        corpus_title: of a run, the column of the corpus that was, when the pairs were prepared.
    """

    query: str
    document: str
    query_id: str | None
    doc_id: str | None
    kept: dict[str, str]
    candidates: tuple[str, ...] | None = None
    title: str | None = None
    corpus_title: str | None = None

    @property
    def texts(self) -> list[str]:
        """The columns that the model's input is made of."""
        return list(filter(None, dict.fromkeys((self.query, self.document, self.title))))

    @property
    def group_key(self) -> str:
        return self.query_id or self.query


class ShardSpec(Contract):
    """One shard as its Celery message carries it: the query groups that begin in its rows."""

    job_id: JobId
    output_uri: OutputUri
    shard_index: int = Field(ge=0)
    n_shards: int = Field(ge=1)
    start_row: int = Field(ge=0)
    stop_row: int = Field(ge=0)


class SubmitMessage(Contract):
    """The arguments of `rankmill.submit`; whoever sends it sees in Flower what its spec lacks."""

    spec: dict[str, Any]
    overwrite: bool = False


class ShardMessage(Contract):
    """The arguments of `rankmill.score_shard`."""

    shard: ShardSpec


class JobMessage(Contract):
    """The arguments of `rankmill.prepare` and `rankmill.finalize`."""

    job_id: JobId
    output_uri: OutputUri


class Plan(Contract):
    """A job's input files and shards, fixed when it starts.

    Rows are numbered through all files in their order; shard i owns the query groups that begin in
    rows `shard_bounds[i]` to `shard_bounds[i + 1]`.

    Attributes:
        arrow_schema: the columns of every file, as Arrow serializes a schema, in base64.
    """

    job_id: str
    files: tuple[InputFile, ...]
    arrow_schema: str
    columns: Columns
    shard_bounds: Annotated[tuple[int, ...], Field(min_length=2)]

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.arrow_schema)))

    @property
    def n_rows(self) -> int:
        return self.shard_bounds[-1]

    @property
    def n_shards(self) -> int:
        return len(self.shard_bounds) - 1

    def shard(self, shard_index: int, output_uri: str) -> ShardSpec:
        return ShardSpec(
            job_id=self.job_id,
            output_uri=output_uri,
            shard_index=shard_index,
            n_shards=self.n_shards,
            start_row=self.shard_bounds[shard_index],
            stop_row=self.shard_bounds[shard_index + 1],
        )


class JobRecord(Contract):
    """`job.json`: the spec under the id that the job got.

    `prepares` says that there is something to do before there can be a plan: turn the input into
    pairs, look up which scores are known; `no_reuse` why the latter is left out although the spec
    asks for it. `content_id` is `job_id_for` the spec and the input's files, the job's id too
    unless a schedule named it.
    """

    job_id: str
    spec: JobSpec
    submitted_at: datetime
    prepares: bool = False
    content_id: str | None = None
    no_reuse: str | None = None


def encode_schema(schema: pa.Schema) -> str:
    """What `Plan.arrow_schema` holds."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def job_id_for(spec: JobSpec, files: tuple[InputFile, ...]) -> str:
    """The job's name: the same spec over the same files is the same job.

    Priority and reuse do not count: they change when a job is done, not what comes out. An option
    that came later counts where it is given, so that jobs without it keep their names.
    """
    exclude = {"priority", "reuse_from"}
    exclude |= {name for name in _LATER_OPTIONS if getattr(spec, name) is None}
    digest = hashlib.sha256(spec.model_dump_json(exclude=exclude).encode())
    for file in files:
        digest.update(file.model_dump_json().encode())
    return digest.hexdigest()[:12]
