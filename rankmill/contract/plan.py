"""A job's plan: its input files, the roles of their columns, and its shards."""

from __future__ import annotations

import base64
import operator
from functools import cached_property
from typing import Annotated, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from rankmill.contract.base import Contract, JobId, OutputUri, Since
from rankmill.errors import InputError
from rankmill.storage import FileStat

InputRole = Literal["input", "queries", "corpus"]
Partition = dict[str, int | str | None]

# The columns that a part adds to those it keeps, in this order.
RESULT_COLUMNS = ("logit", "score", "rank", "n_tokens", "truncated")
# Those after them where documents are scored in passages: their number, and the characters of the
# best one in the text that the model got.
PASSAGE_COLUMNS = ("n_passages", "best_passage_start", "best_passage_end")
# Those after them where both stages are fused.
FUSED_COLUMNS = ("fused_score", "fused_rank")
# The column of a part that holds a query's ranked candidates, with --layout lists.
CANDIDATES_COLUMN = "candidates"

# Each worker reads the plan, and a footer of 500 bytes may name any number of rows.
MAX_SHARDS = 1_000_000

REJECT_COLUMNS = ("file", "row", "reason")

# Columns of a prepared dataset: why a pair cannot be scored, and its file and row in the input.
REFUSAL_COLUMN = "_refusal"
ORIGIN_COLUMNS = ("_file", "_row")
STATUS_COLUMNS = (REFUSAL_COLUMN, *ORIGIN_COLUMNS)
# Another of them: the characters of the title before the text, where passages repeat it.
TITLE_CHARS_COLUMN = "_title_chars"


class InputFile(Contract):
    """An input file as it was when the plan was made; a change shows in its size or state.

    Attributes:
        state: modification time of a local file, ETag of an object.
        partition: values of columns that the file does not store. Those of its path, such as
            `…/lang=de/…`, are numbers if all files have numbers. Those of other files are null.
        names: the input's name of a column to the file's own name for it, if they differ.
    """

    uri: str
    n_rows: int = Field(ge=0)
    size_bytes: int = Field(ge=0)
    state: str
    partition: Partition = Field(default_factory=dict)
    names: dict[str, str] = Field(  # left out if empty, so that job ids stay the same
        default_factory=dict, exclude_if=operator.not_
    )
    role: InputRole = "input"

    @property
    def stat(self) -> FileStat:
        """The file as storage names it."""
        return FileStat(self.uri, self.size_bytes, self.state)


class Columns(Contract):
    """The role of each input column, resolved against the schema.

    Attributes:
        query_id: the column that names a query group; None if the query's text does.
        kept: input column to its name in the parts, in order. The names differ only if the column
            would collide with a result column: `score` becomes `input_score`.
        candidates: the input columns of a candidate rather than of its query, with --layout lists;
            None if a part has a row for each candidate.
        title: the column that is placed before each document's text.
        corpus_title: the corpus's column that was placed there while a run was prepared.
        prompt: the column with each query's own prompt.
        title_chars: of a run whose documents are scored in passages, the column with the number of
            characters of the title before each text.
    """

    query: str
    document: str
    query_id: str | None
    doc_id: str | None
    kept: dict[str, str]
    candidates: tuple[str, ...] | None = None
    title: str | None = None
    corpus_title: str | None = None
    prompt: Annotated[str | None, Since(major=2)] = None
    title_chars: Annotated[str | None, Since(major=2)] = None

    @property
    def texts(self) -> list[str]:
        """The columns that the model reads."""
        texts = (self.query, self.document, self.title, self.prompt, self.title_chars)
        return list(filter(None, dict.fromkeys(texts)))

    @property
    def group_key(self) -> str:
        """The column whose value names a query group."""
        return self.query_id or self.query


class ShardSpec(Contract):
    """A shard in its Celery message: the query groups that begin in its rows."""

    job_id: JobId
    output_uri: OutputUri
    shard_index: int = Field(ge=0, lt=MAX_SHARDS)
    n_shards: int = Field(ge=1, le=MAX_SHARDS)
    start_row: int = Field(ge=0, lt=2**63)
    stop_row: int = Field(ge=0, lt=2**63)


class ShardMessage(Contract):
    """The arguments of `rankmill.score_shard`."""

    shard: ShardSpec


class Plan(Contract):
    """A job's input files and shards, fixed when it starts.

    Rows are numbered through all files in order. Shard i owns the query groups that begin in
    rows `shard_bounds[i]` to `shard_bounds[i + 1]`.

    Attributes:
        arrow_schema: the schema of every file, serialized by Arrow, in base64.
    """

    job_id: str
    files: tuple[InputFile, ...]
    arrow_schema: str
    columns: Columns
    shard_bounds: Annotated[tuple[int, ...], Field(min_length=2, max_length=MAX_SHARDS + 1)]

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        """Check that the shards cover the files' rows without a gap or an overlap."""
        bounds = self.shard_bounds
        rises = all(map(operator.lt, bounds, bounds[1:])) or bounds == (0, 0)
        if bounds[0] != 0 or not rises:
            raise ValueError("shard_bounds do not rise from 0")
        n_rows = sum(file.n_rows for file in self.files)
        if self.files and n_rows != bounds[-1]:
            raise ValueError(f"shard_bounds end at {bounds[-1]}, but the files have {n_rows} rows")
        return self

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of every file.

        Raises:
            InputError: `arrow_schema` is not a schema.
        """
        try:
            return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.arrow_schema)))
        except (ValueError, OSError, pa.ArrowException) as error:
            raise InputError(f"plan of job {self.job_id}: arrow_schema is not a schema") from error

    @property
    def n_rows(self) -> int:
        """Rows of the input."""
        return self.shard_bounds[-1]

    @property
    def n_shards(self) -> int:
        """Shards of the job."""
        return len(self.shard_bounds) - 1

    def shard(self, shard_index: int, output_uri: str) -> ShardSpec:
        """Return a shard for its message.

        Raises:
            InputError: the plan has no such shard.
        """
        if not 0 <= shard_index < self.n_shards:
            raise InputError(
                f"job {self.job_id} has no shard {shard_index}: its plan has {self.n_shards}"
            )
        return ShardSpec(
            job_id=self.job_id,
            output_uri=output_uri,
            shard_index=shard_index,
            n_shards=self.n_shards,
            start_row=self.shard_bounds[shard_index],
            stop_row=self.shard_bounds[shard_index + 1],
        )


def encode_schema(schema: pa.Schema) -> str:
    """Return a schema as `Plan.arrow_schema` holds it."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()
