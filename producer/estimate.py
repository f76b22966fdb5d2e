"""What a job would come to before it is run: rows, tokens, waste and time. Writes nothing.

from producer.estimate import estimate

found = estimate(JobOptions(input_uri="candidates.parquet", model_id="demo"))
print(found.tokens, found.pace)
"""

from __future__ import annotations

from collections import Counter

from producer.forecast import (
    Facts,
    Pace,
    SeenRows,
    Spread,
    Tokens,
    tokens_of,
)
from producer.groups import GroupSizes, group_sizes
from producer.local import devices
from producer.measure import measure
from producer.plan import read_source, resolve_columns
from producer.sample import read_sample
from producer.shards import shard_bounds
from rankmill import models
from rankmill.errors import InputError
from rankmill.measure import MeasureRequest
from rankmill.spec import JobOptions

SAMPLE_PAIRS = 4096
_CALIBRATE_S = 8.0


class Estimate(Facts):
    """What `rankmill estimate` prints: totals of the whole input, shares of the sample.

    Attributes:
        candidates: of a query group; None where groups were inferred from the sample.
        n_returning_groups: those whose query was there before, with other queries in between.
        rejected_by_reason: rows of the sample.
        duplicate_share: rows of the sample whose texts an earlier one has too.
        tokens: None for a model that scores nothing, or where no row can be scored.
        pace: None where it was neither calibrated nor given.
    """

    input_uri: str
    n_files: int
    n_bytes: int
    n_rows: int
    n_query_groups: int
    candidates: Spread | None
    n_returning_groups: int
    n_shards: int
    n_sample_rows: int
    n_sample_places: int
    rejected_by_reason: dict[str, int]
    duplicate_share: float
    model_id: str
    path: str
    path_reason: str
    precision: str
    device: str
    tokens: Tokens | None
    pace: Pace | None


def estimate(
    options: JobOptions,
    *,
    n_sample: int = SAMPLE_PAIRS,
    device: str = "auto",
    n_devices: int | None = None,
    pairs_per_s: float | None = None,
    calibrate: bool = True,
) -> Estimate:
    """Read the input's footers, keys and a sample, and show the sample to the engine.

    Args:
        n_devices: as many as will score; else those of this machine.
        pairs_per_s: what a device is known to do, which is then not calibrated.

    Raises:
        InputError: bad input or options, or a model that cannot be had.
    """
    _check_layout(options)
    model_folder = _model_folder(options)
    if models.is_null(options.model_id) and pairs_per_s is None:
        pairs_per_s = models.null_rate(options.model_id)
    source = read_source(options.input_uri, (options.query_col, options.document_col))
    columns = resolve_columns(options, source.schema)
    needed = sorted({columns.group_key, columns.query, columns.document})
    sample = read_sample(source, needed, n_sample, options.damaged)
    groups = group_sizes(source, columns, sample, options.damaged, cluster=options.cluster)
    request = MeasureRequest(
        options=options,
        columns=columns,
        model_folder=model_folder,
        calibrate_s=_CALIBRATE_S if calibrate and pairs_per_s is None else 0,
    )
    found = devices(device)
    measurement = measure(request, sample.table, found[0])
    seen = SeenRows.of(sample, columns, measurement)
    if measurement.calibration is not None:
        pairs_per_s = seen.pairs_per_s(measurement.calibration)
    pace = None
    if pairs_per_s is not None:
        n_devices = n_devices or len(found)
        pace = Pace.of(pairs_per_s, source.n_rows, n_devices, measurement.calibration)
    bounds = shard_bounds(source.group_rows, source.group_bytes, options.shard_pairs)
    return Estimate(
        input_uri=options.input_uri,
        n_files=len(source.files),
        n_bytes=sum(file.size_bytes for file in source.files),
        n_rows=source.n_rows,
        n_query_groups=groups.n_groups,
        candidates=_candidates(groups),
        n_returning_groups=groups.n_returning,
        n_shards=len(bounds) - 1,
        n_sample_rows=len(seen.n_tokens),
        n_sample_places=len(sample.sizes),
        rejected_by_reason=dict(sorted(Counter(measurement.refused.values()).items())),
        duplicate_share=seen.duplicate_share,
        model_id=options.model_id,
        path=measurement.path,
        path_reason=measurement.path_reason,
        precision=measurement.precision,
        device=measurement.device,
        tokens=tokens_of(sample, seen, measurement),
        pace=pace,
    )


def _model_folder(options: JobOptions) -> str | None:
    if models.is_null(options.model_id):
        return None
    return str(models.locate(options.model_id, options.model_revision).absolute())


def _candidates(groups: GroupSizes) -> Spread | None:
    return Spread.of(groups.sizes) if groups.sizes is not None and groups.n_groups else None


def _check_layout(options: JobOptions) -> None:
    if options.layout != "pairs":
        raise InputError(
            f"estimate reads pairs; --layout {options.layout} is not estimated yet: run the job, "
            "or estimate from pairs"
        )
