"""Estimate a job before it runs: rows, tokens, padding and time. Writes nothing.

from producer import estimate

found = estimate(JobOptions(input_uri="candidates.parquet", model_id="demo"))
print(found.tokens, found.pace)
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from producer.cluster.local import devices
from producer.estimates.engine import measure
from producer.estimates.forecast import Cost, Facts, Pace, SeenRows, Spread, Tokens, tokens_of
from producer.estimates.groups import GroupSizes, group_sizes
from producer.estimates.sample import Sample, read_sample
from producer.inputs.columns import resolve_columns
from producer.inputs.find import find
from producer.inputs.layouts import check_layout
from producer.inputs.source import Source, read_pairs, read_source
from producer.jobs.plan import shard_bounds
from producer.prepare.job_inputs import find_inputs, needs_prepare, pinned
from producer.prepare.prepare import prepare
from rankmill.contract.estimate import FasterPrecision, MeasureRequest
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.contract.plan import Columns, InputFile
from rankmill.errors import InputError
from rankmill.models.locate import locate_model
from rankmill.models.names import is_null_model, null_rate
from rankmill.models.scoring_settings import check_lengths
from rankmill.settings import settings
from rankmill.tables.schema import with_id_types
from rankmill.wrong_value import check_positive

SAMPLE_PAIRS = 4096
_CALIBRATE_S = 8.0


class Estimate(Facts):
    """The facts that `rankmill estimate` prints: totals of the whole input, shares of the sample.

    Attributes:
        candidates: per query group; None if groups were inferred from the sample.
        n_returning_groups: groups whose query occurred before, with other queries in between.
        rejected_by_reason: rows of the sample.
        duplicate_share: share of the sample's rows whose texts occur in an earlier row.
        tokens: None for a model that scores nothing, or if no row can be scored.
        pace: None if it was neither calibrated nor given.
        notes: which columns were found by their usual names.
        title_col: the column that is put before each document's text, if any.
        faster: int8 where `auto` is fp32, since the CPU has no bf16; None elsewhere.
        cost: None without a price or a pace.
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
    title_col: str | None = None
    notes: tuple[str, ...] = ()
    faster: FasterPrecision | None = None
    cost: Cost | None = None


def estimate(
    options: JobOptions,
    *,
    n_sample: int = SAMPLE_PAIRS,
    device: str | None = None,
    n_devices: int | None = None,
    pairs_per_s: float | None = None,
    calibrate: bool = True,
    price_per_hour: float | None = None,
) -> Estimate:
    """Read the input's footers, keys and a sample, and measure the sample with the engine.

    An input that a job would prepare first is prepared here too, in the scratch folder.

    Args:
        options: the job's options.
        n_sample: rows to sample.
        device: where to calibrate; by default as the settings say.
        n_devices: how many will score; by default those of this machine.
        pairs_per_s: the known rate of a device, which is then not calibrated.
        calibrate: measure the rate of a device.
        price_per_hour: of a device, to estimate the cost.

    Raises:
        InputError: bad input or options, or a model that cannot be loaded.
    """
    check_positive("--pairs-per-s", pairs_per_s)
    check_positive("--price-per-hour", price_per_hour)
    check_positive("--devices", n_devices)
    model_folder = _model_folder(options)
    given = pairs_per_s
    if given is None and is_null_model(options.model_id):
        given = null_rate(options.model_id)
    if price_per_hour is not None and not calibrate and given is None:
        raise InputError("--price-per-hour and --no-calibrate: a cost needs a speed; leave one out")
    with tempfile.TemporaryDirectory(prefix="rankmill-", dir=settings().scratch) as scratch:
        found_pairs = find_pairs(options, Path(scratch))
        files, source = found_pairs.files, found_pairs.source
        sampled = _sampled(options, source, found_pairs.columns, n_sample)
        found = devices(device or settings().device)
        request = MeasureRequest(
            options=options,
            columns=sampled.columns,
            model_folder=model_folder,
            calibrate_s=_CALIBRATE_S if calibrate and given is None else 0,
        )
        measurement = measure(request, sampled.sample.table, found[0])
    seen = SeenRows.of(sampled.sample, sampled.columns, measurement)
    if measurement.calibration is not None:
        candidates = source.n_rows / max(1, sampled.groups.n_groups)
        given = seen.pairs_per_s(measurement.calibration, candidates)
    pace = None
    if given is not None:
        pace = Pace.of(given, source.n_rows, n_devices or len(found), measurement.calibration)
    bounds = shard_bounds(source.group_rows, source.group_bytes, options.shard_pairs)
    sizes = sampled.groups.sizes
    return Estimate(
        input_uri=options.input_uri,
        n_files=len(files),
        n_bytes=sum(file.size_bytes for file in files),
        n_rows=source.n_rows,
        n_query_groups=sampled.groups.n_groups,
        candidates=Spread.of(sizes) if sizes is not None and sampled.groups.n_groups else None,
        n_returning_groups=sampled.groups.n_returning,
        n_shards=len(bounds) - 1,
        n_sample_rows=len(seen.n_tokens),
        n_sample_places=len(sampled.sample.sizes),
        rejected_by_reason=dict(sorted(Counter(measurement.refused.values()).items())),
        duplicate_share=seen.duplicate_share,
        model_id=options.model_id,
        path=measurement.path,
        path_reason=measurement.path_reason,
        precision=measurement.precision,
        device=measurement.device,
        tokens=tokens_of(sampled.sample, seen, measurement),
        pace=pace,
        notes=found_pairs.notes,
        title_col=sampled.columns.title or sampled.columns.corpus_title,
        faster=measurement.faster,
        cost=Cost.of(pace, price_per_hour) if pace and price_per_hour is not None else None,
    )


@dataclass(frozen=True)
class FoundPairs:
    """The pairs of an input.

    Attributes:
        files: the input's files.
        source: those files, or what a job would prepare from them.
        columns: the role of each column.
        notes: which columns were found by their usual names.
    """

    files: tuple[InputFile, ...]
    source: Source
    columns: Columns
    notes: tuple[str, ...]


def find_pairs(options: JobOptions, scratch: Path) -> FoundPairs:
    """Find an input's pairs, as a job would.

    Scattered pairs in Parquet are not grouped by query; they can be counted as they are.
    """
    spec = JobSpec(
        **{**options.model_dump(), "cluster": False, "output_uri": str(scratch / "pairs")}
    )
    found = find(spec.input_uri, spec.input_version)
    named = pinned(spec, found)
    spec = named.spec
    if not needs_prepare(spec, found):
        source = read_pairs(spec, found)
        check_layout(spec, source.files[0].uri, source.schema)
        columns = resolve_columns(spec, source.schema)
        return FoundPairs(source.files, source, columns, named.notes)
    files = find_inputs(spec, found)
    memory = settings().prepare_memory
    columns = prepare(spec, files, spec.output_uri, scratch, lambda *_: None, memory)
    return FoundPairs(files, read_source([spec.output_uri]), columns, named.notes)


@dataclass(frozen=True)
class _Sampled:
    """Everything that was read from the pairs."""

    columns: Columns
    sample: Sample
    groups: GroupSizes


def _sampled(options: JobOptions, source: Source, columns: Columns, n_sample: int) -> _Sampled:
    schema = with_id_types(source.schema, (columns.query_id, columns.doc_id))
    source = replace(source, schema=schema)
    needed = sorted({columns.group_key, *columns.texts})
    sample = read_sample(source, needed, n_sample, options.damaged)
    groups = group_sizes(source, columns, sample, options.damaged, cluster=options.cluster)
    return _Sampled(columns, sample, groups)


def _model_folder(options: JobOptions) -> str | None:
    if is_null_model(options.model_id):
        check_lengths(options, None)
        return None
    folder = locate_model(
        options.model_id, options.model_revision, has_template=options.has_template
    )
    check_lengths(options, folder)
    return str(folder.absolute())
