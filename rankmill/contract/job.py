"""A submission: its options, its record, and the messages that name it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from rankmill.contract.base import Contract, JobId, OutputUri, Revision, Since
from rankmill.contract.plan import FUSED_COLUMNS, PASSAGE_COLUMNS, RESULT_COLUMNS
from rankmill.placeholders import check_input_template

Activation = Literal["auto", "none", "sigmoid"]
Layout = Literal["pairs", "lists", "run"]
Fusion = Literal["rrf", "weighted"]
LongDocs = Literal["truncate", "max-passage", "first-and-last", "mean-top3"]

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "fp8"]

_MAX_TEXT = 100_000  # each worker reads a job's options, and Redis may hold them


def _unset(meaning: str) -> dict[str, JsonValue]:
    return {"unset": meaning}


class JobOptions(Contract):
    """A job without its output: source, model and options, by the names of the flags.

    `_unset` names what a field without a value means.
    """

    input_uri: str = Field(min_length=1)
    input_version: str | None = Field(
        None,
        min_length=1,
        description="Version or time of a Delta table; snapshot, branch or tag of an Iceberg table",
        json_schema_extra=_unset("newest"),
    )
    model_id: str = Field(
        "BAAI/bge-reranker-v2-m3",
        min_length=1,
        max_length=4096,
        description="Hub id, model folder, or demo",
    )
    model_revision: Revision | None = Field(
        None,
        description="Commit, branch or tag of a hub model",
        json_schema_extra=_unset("pinned commit"),
    )
    layout: Layout = Field(
        "pairs",
        description="Meaning of a row: one candidate (pairs), a query with a list of candidates "
        "(lists), or ids (run, with --queries and --corpus)",
    )
    queries: str | None = Field(
        None, description="Queries of a run: Parquet, BEIR's JSONL, TSV, Delta or Iceberg"
    )
    corpus: str | None = Field(None, description="Documents of a run, in the same formats")
    queries_version: str | None = Field(
        None,
        min_length=1,
        description="Version of a table in --queries, as --input-version",
        json_schema_extra=_unset("newest"),
    )
    corpus_version: str | None = Field(
        None,
        min_length=1,
        description="Version of a table in --corpus, as --input-version",
        json_schema_extra=_unset("newest"),
    )
    columns: Annotated[tuple[str, ...] | None, Since(major=3)] = Field(
        None,
        min_length=1,
        description="Names of the columns of a CSV or TSV without a header, comma-separated",
        json_schema_extra=_unset("by its header"),
    )
    query_col: str = Field("query", description="Column with the query's text")
    document_col: str = Field("document", description="Column with the document's text")
    title_col: str | None = Field(
        None,
        description="Column with the document's title, placed before its text; none for no title",
        json_schema_extra=_unset("title if there"),
    )
    query_id_col: str | None = Field(
        None,
        description="Column that names the query group",
        json_schema_extra=_unset("query_id if there, else the text"),
    )
    doc_id_col: str | None = Field(
        None,
        description="Column that names the document",
        json_schema_extra=_unset("doc_id if there"),
    )
    keep_cols: tuple[str, ...] | None = Field(
        None,
        description="Input columns to keep, comma-separated",
        json_schema_extra=_unset("all; without texts if there are ids"),
    )
    explode: bool = Field(
        False, description="With --layout lists: write a row per candidate, not a list per query"
    )
    trec_run: bool = Field(
        False, description="Also write run.trec for trec_eval and ir-measures, next to the report"
    )
    cluster: bool = Field(
        False, description="Group the rows by query first, if INPUT is not grouped already"
    )
    duplicates: Literal["fail", "keep"] = Field(
        "fail", description="If a query lists a document twice: fail, or keep both"
    )
    damaged: Literal["fail", "reject"] = Field(
        "fail", description="If a row group cannot be read: fail, or reject its rows"
    )
    prompt: Annotated[str | None, Since(major=2)] = Field(
        None,
        min_length=1,
        max_length=_MAX_TEXT,
        description="Instruction to the model",
        json_schema_extra=_unset("the model's own"),
    )
    prompt_col: Annotated[str | None, Since(major=2)] = Field(
        None,
        min_length=1,
        description="Column with each query's own instruction; empty for --prompt",
        json_schema_extra=_unset("none"),
    )
    chat_template: Annotated[str | None, Since(major=2)] = Field(
        None,
        min_length=1,
        max_length=_MAX_TEXT,
        description="Jinja file for messages of the roles system (the prompt), query and document",
        json_schema_extra=_unset("the model's own"),
    )
    input_template: Annotated[str | None, Since(major=2)] = Field(
        None,
        min_length=1,
        max_length=_MAX_TEXT,
        description="File with the model's input: {query}, {document} and maybe {prompt} in a text",
        json_schema_extra=_unset("the model's own"),
    )
    yes_token: Annotated[str | None, Since(major=2)] = Field(
        None,
        min_length=1,
        max_length=256,
        description="Token that means relevant, for a language model: its text, or id:N",
        json_schema_extra=_unset("the model's own"),
    )
    no_token: Annotated[str | None, Since(major=2)] = Field(
        None,
        min_length=1,
        max_length=256,
        description="Token that means irrelevant; without it, the score is by --yes-token alone",
        json_schema_extra=_unset("the model's own"),
    )
    query_prefix: Annotated[str | None, Since(major=2)] = Field(
        None,
        min_length=1,
        max_length=_MAX_TEXT,
        description="Text before each query",
        json_schema_extra=_unset("none"),
    )
    document_prefix: Annotated[str | None, Since(major=2)] = Field(
        None,
        min_length=1,
        max_length=_MAX_TEXT,
        description="Text before each document",
        json_schema_extra=_unset("none"),
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="Write only the best N rows of each query",
        json_schema_extra=_unset("all"),
    )
    fuse: Annotated[Fusion | None, Since(major=3)] = Field(
        None,
        description="Also rank by both stages, as fused_score and fused_rank: by their ranks "
        "(rrf), or by their scores (weighted)",
        json_schema_extra=_unset("the model alone"),
    )
    fuse_col: Annotated[str | None, Since(major=3)] = Field(
        None,
        min_length=1,
        description="Column with the first stage's scores; higher is better",
        json_schema_extra=_unset("score if there, else the input's order"),
    )
    fuse_k: Annotated[int, Since(major=3)] = Field(
        60, ge=1, le=1_000_000, description="With --fuse rrf: each rank counts 1 / (K + rank)"
    )
    fuse_weight: Annotated[float, Since(major=3)] = Field(
        0.5, ge=0, le=1, description="With --fuse weighted: the share of the model's score"
    )
    max_length: int | None = Field(
        None,
        ge=8,
        description="Truncate pairs to N tokens",
        json_schema_extra=_unset("the model's maximum"),
    )
    long_docs: Annotated[LongDocs, Since(major=2)] = Field(
        "truncate",
        description="Cut long documents, or score their passages and take the best one, the "
        "better of first and last, or the mean of the best three",
    )
    passage_tokens: Annotated[int | None, Since(major=2)] = Field(
        None,
        ge=8,
        description="Tokens of a passage, without the query",
        json_schema_extra=_unset("what fits next to the query"),
    )
    passage_stride: Annotated[int, Since(major=2)] = Field(
        0, ge=0, description="Tokens that a passage shares with the one before it"
    )
    max_query_tokens: Annotated[int | None, Since(major=2)] = Field(
        None, ge=1, description="Cut queries to N tokens", json_schema_extra=_unset("no cut")
    )
    max_document_tokens: Annotated[int | None, Since(major=2)] = Field(
        None, ge=1, description="Cut documents to N tokens", json_schema_extra=_unset("no cut")
    )
    precision: Precision = Field("auto", description="Number format of the forward pass")
    activation: Activation = Field(
        "auto", description="Function from logit to score; auto: the model's own"
    )
    max_batch_tokens: int | None = Field(
        None, ge=1, description="Maximum tokens of a batch", json_schema_extra=_unset("measured")
    )
    shard_pairs: int | None = Field(
        None,
        ge=1,
        description="Rows of a shard",
        json_schema_extra=_unset("1/32 of the input, 1,024 to 32,768"),
    )
    priority: int = Field(
        5, ge=1, le=9, description="Share of the workers: 9 gets three times as much as 3"
    )
    max_reject_rate: float = Field(
        0.01, ge=0, le=1, description="Share of rejected rows above which the job fails"
    )
    reuse_from: str | None = Field(
        None,
        min_length=1,
        description="Reuse the scores of equal pairs from this job's output; latest: from the last "
        "success in latest.json next to OUTPUT",
    )
    for_reuse: bool = Field(
        False, description="Keep every score for later reuse, about 22 bytes a row"
    )

    @property
    def result_columns(self) -> tuple[str, ...]:
        """The columns that a part adds to those it keeps, in this order."""
        passages = PASSAGE_COLUMNS if self.has_passages else ()
        return RESULT_COLUMNS + passages + (FUSED_COLUMNS if self.fuse is not None else ())

    @property
    def order_column(self) -> str:
        """The column of a part by which its rows are ranked and cut."""
        return "rank" if self.fuse is None else "fused_rank"

    @property
    def has_passages(self) -> bool:
        """Whether documents are scored in passages."""
        return self.long_docs != "truncate"

    @property
    def has_template(self) -> bool:
        """Whether the job says how a pair becomes the model's input."""
        return self.chat_template is not None or self.input_template is not None

    @property
    def needs_prompt(self) -> bool:
        """Whether a row must have a prompt of its own, since its template shows one."""
        return self.input_template is not None and self.prompt_col is not None and not self.prompt

    @field_validator("*")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        """Refuse what cannot be written to job.json: bytes of a command line that are not UTF-8."""
        for text in value if isinstance(value, tuple | list) else (value,):
            try:
                _ = text.encode() if isinstance(text, str) else None
            except UnicodeEncodeError:
                raise ValueError("is not UTF-8 text") from None
        return value

    @model_validator(mode="after")
    def _check_templates(self) -> Self:
        """Refuse options of the model's input that contradict each other."""
        if self.no_token is not None and self.yes_token is None:
            raise ValueError(f"--no-token {self.no_token} needs --yes-token")
        if self.yes_token is not None and self.yes_token == self.no_token:
            raise ValueError(f"--yes-token and --no-token are both {self.yes_token}")
        if self.input_template is None:
            return self
        if self.chat_template is not None:
            raise ValueError("--chat-template and --input-template: give one")
        has_prompt = self.prompt is not None or self.prompt_col is not None
        try:
            check_input_template(self.input_template, has_prompt=has_prompt)
        except ValueError as error:
            raise ValueError(f"--input-template: {error}") from None
        return self

    @model_validator(mode="after")
    def _check_fusion(self) -> Self:
        """Refuse options of fusion that would have no effect."""
        for flag, value, default, needed in (
            ("--fuse-col", self.fuse_col, None, self.fuse),
            ("--fuse-k", self.fuse_k, 60, "rrf"),
            ("--fuse-weight", self.fuse_weight, 0.5, "weighted"),
        ):
            if value != default and (self.fuse is None or self.fuse != needed):
                raise ValueError(f"{flag} {value:}: needs --fuse {needed or 'rrf or weighted'}")
        return self

    @model_validator(mode="after")
    def _check_passages(self) -> Self:
        """Refuse options of passages that contradict each other."""
        if not self.has_passages:
            for flag, value in (
                ("--passage-tokens", self.passage_tokens),
                ("--passage-stride", self.passage_stride),
            ):
                if value:
                    raise ValueError(
                        f"{flag} {value} needs --long-docs max-passage, first-and-last or mean-top3"
                    )
        if self.passage_tokens is not None and 2 * self.passage_stride > self.passage_tokens:
            raise ValueError(
                f"--passage-stride {self.passage_stride}: passages of --passage-tokens "
                f"{self.passage_tokens} share half of their tokens at most; give "
                f"{self.passage_tokens // 2} or less"
            )
        return self


class JobSpec(JobOptions):
    """A submission."""

    output_uri: OutputUri


class SubmitMessage(Contract):
    """The arguments of `rankmill.submit`; the task checks the spec, so that Flower shows errors."""

    spec: dict[str, Any]
    overwrite: bool = False


class JobMessage(Contract):
    """The arguments of `rankmill.prepare` and `rankmill.finalize`."""

    job_id: JobId
    output_uri: OutputUri


class JobRecord(Contract):
    """`job.json`: a submission and its id.

    Attributes:
        prepares: whether the job must be prepared before it is planned: its input is converted to
            pairs, or known scores are looked up.
        content_id: `job_id_for` the spec and the input's files. The job's id is the same unless a
            schedule gave it one.
        no_reuse: why no scores are looked up although the spec asks for it.
    """

    job_id: str
    spec: JobSpec
    submitted_at: datetime
    prepares: bool = False
    content_id: str | None = None
    no_reuse: str | None = None
