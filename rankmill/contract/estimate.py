"""What a producer asks of the engine about a sample, and what it is answered, over two pipes.

The question is a line of JSON with the sample after it as an Arrow stream, so that no text touches
a disk; the answer is JSON.
"""

from __future__ import annotations

import pyarrow as pa

from rankmill.contract.base import Contract, parse
from rankmill.contract.job import Columns, JobOptions


class MeasureRequest(Contract):
    """How the job would score the sample that goes with this.

    Attributes:
        model_folder: None for a model that scores nothing.
        calibrate_s: seconds to score for, to see how fast it goes; 0 loads no weights.
    """

    options: JobOptions
    columns: Columns
    model_folder: str | None
    calibrate_s: float

    def with_sample(self, sample: pa.Table) -> bytes:
        """Both as one message; the sample has the job's columns and REFUSAL_COLUMN."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, sample.schema) as stream:
            stream.write_table(sample)
        return b"\n".join((self.model_dump_json().encode(), sink.getvalue().to_pybytes()))

    @classmethod
    def read(cls, message: bytes) -> tuple[MeasureRequest, pa.Table]:
        """What `with_sample` was given."""
        line, _, sample = message.partition(b"\n")
        return parse(cls, line, "measure"), pa.ipc.open_stream(sample).read_all()


class Calibration(Contract):
    """What a device did in some seconds; equal pairs count once, as the model sees them."""

    n_pairs: int
    n_tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return self.n_tokens / self.seconds


class Measurement(Contract):
    """What the engine sees of a sample.

    Attributes:
        refused: why which rows of the sample cannot be scored.
        n_tokens: of each other row in order, after truncation; empty for `null`.
        truncated: of the same rows, whether text was cut.
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
