"""The request and the answer of an estimate, between the producer and an engine process.

They go over two pipes, so that no text is written to a disk. The request is a line of JSON with
the sample after it as an Arrow stream. The answer is JSON.
"""

from __future__ import annotations

from typing import Annotated

import pyarrow as pa
from pydantic import Field

from rankmill.contract.base import Contract, Since, parse
from rankmill.contract.job import JobOptions
from rankmill.contract.plan import Columns
from rankmill.contract.results import Agreement


class MeasureRequest(Contract):
    """How a job would score the sample that follows.

    Attributes:
        model_folder: None for a model without weights, such as `null`.
        calibrate_s: seconds to score for, to measure the speed; 0 loads no weights.
    """

    options: JobOptions
    columns: Columns
    model_folder: str | None
    calibrate_s: float

    def with_sample(self, sample: pa.Table) -> bytes:
        """Return request and sample in one message.

        The sample has the job's columns and REFUSAL_COLUMN.
        """
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, sample.schema) as stream:
            stream.write_table(sample)
        return b"\n".join((self.model_dump_json().encode(), sink.getvalue().to_pybytes()))

    @classmethod
    def read(cls, message: bytes) -> tuple[MeasureRequest, pa.Table]:
        """Return the request and the sample of a message of `with_sample`."""
        line, _, sample = message.partition(b"\n")
        return parse(cls, line, "measure"), pa.ipc.open_stream(sample).read_all()


class Calibration(Contract):
    """The work of a device in some seconds; equal pairs count once, since they are scored once.

    Attributes:
        n_tokens: of the pairs, without padding.
        n_computed: of the batches; a prefix that pairs of a batch share counts once.
        max_batch_tokens: the budget of a batch, in computed tokens.
    """

    n_pairs: int
    n_tokens: int
    seconds: float
    n_computed: Annotated[int | None, Since(minor=1)] = None
    max_batch_tokens: Annotated[int | None, Since(minor=1)] = None

    @property
    def tokens_per_s(self) -> float:
        """The speed, without padding."""
        return self.n_tokens / self.seconds

    @property
    def computed_per_s(self) -> float:
        """The speed in computed tokens, which does not depend on how many pairs share a prefix."""
        return (self.n_computed or self.n_tokens) / self.seconds


class FasterPrecision(Contract):
    """A precision that is not chosen by itself, and what it would gain and change.

    Attributes:
        times: its speed over that of the chosen precision.
        agreement: with fp32, on some pairs of the sample.
    """

    times: float
    agreement: Agreement


class Measurement(Contract):
    """The engine's facts about a sample.

    Attributes:
        refused: row of the sample to the reason why it cannot be scored.
        n_tokens: tokens of each other row in order, after truncation; empty for `null`.
        truncated: whether the text was truncated, for the same rows.
        n_passages: the passages of each of these rows, where documents are scored in passages.
        n_shared: of the tokens of each of these rows, those in prefixes that all pairs of its query
            share; empty where nothing is shared.
        faster: int8 where `auto` is fp32; None elsewhere, or if nothing was calibrated.
    """

    refused: dict[int, str]
    n_tokens: list[int]
    truncated: list[bool]
    path: str
    path_reason: str
    precision: str
    max_length: int
    device: str
    calibration: Calibration | None
    faster: Annotated[FasterPrecision | None, Since(minor=1)] = None
    n_passages: Annotated[list[int], Since(minor=2)] = Field(default_factory=list)
    n_shared: Annotated[list[int], Since(minor=3)] = Field(default_factory=list)
