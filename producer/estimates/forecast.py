"""From a sample and what the engine says of it to the whole input's tokens, waste and time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from producer.estimates.sample import Sample
from rankmill.contract.estimate import Calibration, Measurement
from rankmill.contract.job import Columns
from rankmill.tables.titles import scored_documents

# What CrossEncoder.predict takes at a time where it is not told, in sentence-transformers 6.2.
_NAIVE_BATCH_PAIRS = 32

_MAX_BINS = 12


class Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(Facts):
    min: int
    median: float
    max: int

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        return cls(min=values.min(), median=float(np.median(values)), max=values.max())


class LengthBin(Facts):
    """`n_pairs` of the sample have `start` to `stop` - 1 tokens."""

    start: int
    stop: int
    n_pairs: int


class Tokens(Facts):
    """What the model would see.

    Attributes:
        n_tokens: of the whole input, equal pairs counted each time, as the manifest does.
        error_share: twice the standard error of `n_tokens`, from the differences between the
            sample's places; 0 where the sample is the input, None where it has one place.
        lengths: of the sample's pairs, cut to `max_length`.
        truncated_share: of the sample's pairs.
        padding_share: of the tokens that CrossEncoder.predict puts through the model for the
            sample, those that are padding.
    """

    n_tokens: int
    error_share: float | None
    max_length: int
    lengths: Spread
    histogram: tuple[LengthBin, ...]
    truncated_share: float
    padding_share: float


class Pace(Facts):
    """How long scoring takes; starting up and loading the model come on top.

    Attributes:
        pairs_per_s: rows of the input that one device gets through.
        tokens_per_s, n_calibrated_pairs: what was seen; None where the pace was given.
    """

    pairs_per_s: float
    tokens_per_s: float | None
    n_calibrated_pairs: int | None
    device_hours: float
    n_devices: int
    hours: float

    @classmethod
    def of(
        cls, pairs_per_s: float, n_rows: int, n_devices: int, calibration: Calibration | None
    ) -> Pace:
        device_hours = n_rows / pairs_per_s / 3600
        return cls(
            pairs_per_s=pairs_per_s,
            tokens_per_s=calibration and calibration.tokens_per_s,
            n_calibrated_pairs=calibration and calibration.n_pairs,
            device_hours=device_hours,
            n_devices=n_devices,
            hours=device_hours / n_devices,
        )


@dataclass(frozen=True)
class SeenRows:
    """A sample's rows as the engine saw them.

    Attributes:
        n_tokens: int64 (n,), 0 for a row that cannot be scored.
        n_chars: int64 (n,), of both texts.
        is_scored: bool (n,).
        is_repeat: bool (n,), whether an earlier row has the same texts; the model sees one of them.
    """

    n_tokens: np.ndarray
    n_chars: np.ndarray
    is_scored: np.ndarray
    is_repeat: np.ndarray

    @classmethod
    def of(cls, sample: Sample, columns: Columns, measurement: Measurement) -> SeenRows:
        n_rows = sample.table.num_rows
        is_scored = np.ones(n_rows, dtype=bool)
        is_scored[list(measurement.refused)] = False
        scored = np.flatnonzero(is_scored)
        n_tokens, n_chars = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64)
        is_repeat = np.zeros(n_rows, dtype=bool)
        if measurement.n_tokens:
            n_tokens[scored] = measurement.n_tokens
        texts = sample.table.take(scored)  # the others may be no text
        seen: set[tuple[str, str]] = set()
        sides = (texts[columns.query], scored_documents(texts, columns))
        pairs = zip(*(side.to_pylist() for side in sides), strict=True)
        for row, (query, document) in zip(scored, pairs, strict=True):
            n_chars[row] = len(query) + len(document)
            is_repeat[row] = (query, document) in seen
            seen.add((query, document))
        return cls(n_tokens, n_chars, is_scored, is_repeat)

    @property
    def duplicate_share(self) -> float:
        return float(self.is_repeat.mean()) if len(self.is_repeat) else 0.0

    def pairs_per_s(self, calibration: Calibration) -> float:
        """Rows that pass in a second, by the tokens of those that the model sees.

        Not by the pairs of the calibration, which may be few and not as long as these.
        """
        n_tokens = int(self.n_tokens[~self.is_repeat].sum())
        return calibration.tokens_per_s * len(self.n_tokens) / n_tokens


def tokens_of(sample: Sample, seen: SeenRows, measurement: Measurement) -> Tokens | None:
    """None where the engine saw no tokens."""
    if not measurement.n_tokens:
        return None
    lengths = seen.n_tokens[seen.is_scored]
    return Tokens(
        n_tokens=round(int(lengths.sum()) * sample.n_rows / len(seen.n_tokens)),
        error_share=_error_share(sample, seen.n_tokens),
        max_length=measurement.max_length,
        lengths=Spread.of(lengths),
        histogram=histogram(lengths),
        truncated_share=float(np.mean(measurement.truncated)),
        padding_share=padding_share(lengths, seen.n_chars[seen.is_scored]),
    )


def histogram(lengths: np.ndarray) -> tuple[LengthBin, ...]:
    """Twelve bins at most, as wide as a power of two, from the shortest length to the longest."""
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = 1
    while longest // width - shortest // width >= _MAX_BINS:
        width *= 2
    counts = np.bincount(lengths // width)
    return tuple(
        LengthBin(
            start=max(at * width, shortest),
            stop=min((at + 1) * width, longest + 1),
            n_pairs=counts[at],
        )
        for at in range(shortest // width, len(counts))
    )


def padding_share(lengths: np.ndarray, n_chars: np.ndarray) -> float:
    """What share CrossEncoder.predict pads: 32 at a time by characters, to the longest of them."""
    ordered = lengths[np.argsort(-n_chars)]
    starts = np.arange(0, len(ordered), _NAIVE_BATCH_PAIRS)
    longest = np.maximum.reduceat(ordered, starts)
    sizes = np.diff([*starts, len(ordered)])
    return 1 - int(ordered.sum()) / int((longest * sizes).sum())


def _error_share(sample: Sample, n_tokens: np.ndarray) -> float | None:
    if sample.is_all:
        return 0.0
    means = np.array([n_tokens[place].mean() for place in sample.places()])
    if len(means) < 2:
        return None
    return float(2 * means.std(ddof=1) / np.sqrt(len(means)) / means.mean())
