"""Extrapolate from a measured sample to the whole input's tokens, padding and time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from producer.estimates.sample import Sample
from rankmill.contract.estimate import Calibration, Measurement
from rankmill.contract.plan import Columns
from rankmill.tables.titles import scored_documents

# The default batch size of CrossEncoder.predict in sentence-transformers 6.2.
_NAIVE_BATCH_PAIRS = 32

_MAX_BINS = 12


class Facts(BaseModel):
    """Facts that `rankmill estimate --json` prints."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(Facts):
    """The smallest, the median and the largest of some values."""

    min: int
    median: float
    max: int

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """Return the spread of values, (n,) with n > 0."""
        return cls(min=values.min(), median=float(np.median(values)), max=values.max())


class LengthBin(Facts):
    """`n_pairs` of the sample have `start` to `stop` - 1 tokens."""

    start: int
    stop: int
    n_pairs: int


class Tokens(Facts):
    """The tokens that the model would see.

    Attributes:
        n_tokens: of the whole input; equal pairs count each time, as in the manifest.
        error_share: twice the standard error of `n_tokens`, from the differences between the
            sample's places; 0 if the sample is the whole input, None if it has one place.
        lengths: of the sample's pairs, cut to `max_length`.
        truncated_share: share of the sample's pairs that are truncated.
        n_passages: of the whole input; None where documents are not scored in passages.
        padding_share: share of padding among the tokens that CrossEncoder.predict would put through
            the model for the sample; None where documents are scored in passages.
    """

    n_tokens: int
    error_share: float | None
    max_length: int
    lengths: Spread
    histogram: tuple[LengthBin, ...]
    truncated_share: float
    padding_share: float | None
    n_passages: int | None = None


class Pace(Facts):
    """The time that scoring takes, without start-up and loading the model.

    Attributes:
        pairs_per_s: input rows per second and device.
        tokens_per_s, n_calibrated_pairs: as measured; None if the pace was given.
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
        """Return the pace of a job over `n_rows` on `n_devices`."""
        device_hours = n_rows / pairs_per_s / 3600
        return cls(
            pairs_per_s=pairs_per_s,
            tokens_per_s=calibration and calibration.tokens_per_s,
            n_calibrated_pairs=calibration and calibration.n_pairs,
            device_hours=device_hours,
            n_devices=n_devices,
            hours=device_hours / n_devices,
        )


class Cost(Facts):
    """The price of scoring, in the unit of `price_per_hour`.

    Attributes:
        price_per_hour: of one device.
        per_million_pairs: of a million input rows.
        total: of the whole input.
    """

    price_per_hour: float
    per_million_pairs: float
    total: float

    @classmethod
    def of(cls, pace: Pace, price_per_hour: float) -> Cost:
        """Return the cost of a job at this pace."""
        return cls(
            price_per_hour=price_per_hour,
            per_million_pairs=price_of_million(pace.pairs_per_s, price_per_hour),
            total=price_per_hour * pace.device_hours,
        )


def price_of_million(pairs_per_s: float, price_per_hour: float) -> float:
    """Return the price of a million pairs.

    Args:
        pairs_per_s: the speed of one device.
        price_per_hour: the price of that device.
    """
    return price_per_hour / 3600 * 1e6 / pairs_per_s


@dataclass(frozen=True)
class SeenRows:
    """A sample's rows as the engine measured them.

    Attributes:
        n_tokens: int64 (n,), 0 for a row that cannot be scored.
        n_chars: int64 (n,), characters of both texts.
        is_scored: bool (n,).
        is_repeat: bool (n,), whether an earlier row has the same texts.
        n_shared: int64 (n,), of the tokens, those in prefixes that all pairs of a query share.
        n_inputs: int64 (n,), what the model gets for a row: its passages, or 1; 0 for nothing.
    """

    n_tokens: np.ndarray
    n_chars: np.ndarray
    is_scored: np.ndarray
    is_repeat: np.ndarray
    n_shared: np.ndarray
    n_inputs: np.ndarray

    @classmethod
    def of(cls, sample: Sample, columns: Columns, measurement: Measurement) -> SeenRows:
        """Combine a sample with its measurement."""
        n_rows = sample.table.num_rows
        is_scored = np.ones(n_rows, dtype=bool)
        is_scored[list(measurement.refused)] = False
        scored = np.flatnonzero(is_scored)
        n_tokens, n_chars = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64)
        is_repeat = np.zeros(n_rows, dtype=bool)
        n_shared, n_inputs = np.zeros(n_rows, np.int64), is_scored.astype(np.int64)
        if measurement.n_tokens:
            n_tokens[scored] = measurement.n_tokens
        if measurement.n_shared:
            n_shared[scored] = measurement.n_shared
        if measurement.n_passages:
            n_inputs[scored] = measurement.n_passages
        texts = sample.table.take(scored)  # the others may be no text
        seen: set[tuple[str, str]] = set()
        sides = (texts[columns.query], scored_documents(texts, columns))
        pairs = zip(*(side.to_pylist() for side in sides), strict=True)
        for row, (query, document) in zip(scored, pairs, strict=True):
            n_chars[row] = len(query) + len(document)
            is_repeat[row] = (query, document) in seen
            seen.add((query, document))
        return cls(n_tokens, n_chars, is_scored, is_repeat, n_shared, n_inputs)

    @property
    def duplicate_share(self) -> float:
        """The share of rows whose texts occur in an earlier row."""
        return float(self.is_repeat.mean()) if len(self.is_repeat) else 0.0

    def pairs_per_s(self, calibration: Calibration, candidates: float) -> float:
        """Return rows per second, from the calibrated rate of computed tokens.

        The rate of the calibration's pairs is not used: they may be few, and of another length. A
        shared prefix is computed once for the pairs of a query that are in one batch.

        Args:
            calibration: the measured rate.
            candidates: the rows of a query group on average.
        """
        is_new = ~self.is_repeat & self.is_scored
        n_tokens, shared, n_inputs = (
            float(each[is_new].sum()) for each in (self.n_tokens, self.n_shared, self.n_inputs)
        )
        if shared and calibration.max_batch_tokens:
            own = n_tokens - shared
            of_batch = (calibration.max_batch_tokens - shared / n_inputs) / (own / n_inputs)
            of_query = candidates * n_inputs / is_new.sum()
            n_tokens = own + shared / max(1.0, min(of_query, of_batch))
        return calibration.computed_per_s * len(self.n_tokens) / n_tokens


def tokens_of(sample: Sample, seen: SeenRows, measurement: Measurement) -> Tokens | None:
    """Return the tokens of the whole input, or None if the engine saw none."""
    if not measurement.n_tokens:
        return None
    lengths = seen.n_tokens[seen.is_scored]
    n_passages, scale = sum(measurement.n_passages), sample.n_rows / len(seen.n_tokens)
    padding = None if n_passages else padding_share(lengths, seen.n_chars[seen.is_scored])
    return Tokens(
        n_tokens=round(int(lengths.sum()) * scale),
        error_share=_error_share(sample, seen.n_tokens),
        max_length=measurement.max_length,
        lengths=Spread.of(lengths),
        histogram=histogram(lengths),
        truncated_share=float(np.mean(measurement.truncated)),
        padding_share=padding,
        n_passages=round(n_passages * scale) if n_passages else None,
    )


def histogram(lengths: np.ndarray) -> tuple[LengthBin, ...]:
    """Count lengths in at most twelve bins of equal width, which is a power of two."""
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
    """Return the share of padding in CrossEncoder.predict.

    It sorts pairs by characters, takes 32 at a time, and pads to the longest of them.

    Args:
        lengths: int64 (n,), tokens of each pair.
        n_chars: int64 (n,), characters of each pair.
    """
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
