"""Compare models on one sample of judged queries: quality, speed, truncation and cost.

from producer import compare_models

found = compare_models(JobOptions(input_uri="in.parquet"), ["demo", "./mine"], "a.qrels")
print(found.models)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from producer.estimates.forecast import price_of_million
from producer.inspection.judged_sample import JudgedSample, judged_sample
from producer.jobs.check import check
from producer.jobs.local_run import run_locally, say_nothing
from producer.jobs.submit import submit_checked
from producer.quality.evaluate import compare_ndcg, evaluate, with_relevant
from producer.quality.measures import measures
from producer.quality.qrels import Qrels, read_qrels
from rankmill.contract.drift import Comparison
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.contract.results import Manifest
from rankmill.errors import InputError, JobFailed
from rankmill.models.locate import locate_model
from rankmill.models.names import is_built_in_model, is_model_folder, is_null_model
from rankmill.models.scoring_settings import check_lengths
from rankmill.output.output import Output
from rankmill.settings import settings

SAMPLE_QUERIES = 200
_CUTOFF = 10
_WEBHOOK = "RANKMILL_WEBHOOK_URL"

# Options of a job that a comparison sets itself, or that change only its output.
_NOT_COMPARED = (
    *("model_id", "model_revision", "top_k", "keep_cols", "explode", "trec_run"),
    *("reuse_from", "for_reuse", "shard_pairs", "priority", "max_reject_rate"),
)


class ComparedModel(BaseModel):
    """A model's figures on the sample.

    Attributes:
        ndcg: nDCG@10, the mean over the queries.
        change: the comparison with the first model; None for that one.
        pairs_per_s: of one device, without start-up and loading.
        truncated_share: share of the scored pairs whose text was cut.
        n_rejected: pairs that were not scored.
        price_of_million: of a million pairs; None without a price.
    """

    model_config = ConfigDict(frozen=True)

    model_id: str
    path: str
    recipe: str | None
    precision: str
    max_length: int
    ndcg: float
    change: Comparison | None
    pairs_per_s: float
    truncated_share: float
    n_rejected: int
    price_of_million: float | None


class ModelComparison(BaseModel):
    """The facts that `models compare --json` prints.

    Attributes:
        n_judged: queries of the judgments with a relevant document.
        n_found: those of them in the input.
        n_queries: those of them in the sample; means are over these.
        n_pairs: their candidates that can be scored.
        ndcg_before: nDCG@10 in the order of the input, by its column `score` if there is one.
    """

    model_config = ConfigDict(frozen=True)

    input_uri: str
    n_judged: int
    n_found: int
    n_queries: int
    n_pairs: int
    ndcg_before: float
    price_per_hour: float | None
    models: tuple[ComparedModel, ...]


def compare_models(
    options: JobOptions,
    models: Sequence[str],
    qrels_uri: str,
    *,
    n_queries: int = SAMPLE_QUERIES,
    price_per_hour: float | None = None,
    say: Callable[[str], None] = say_nothing,
) -> ModelComparison:
    """Score one sample with each model, as `rankmill run` does, and compare with the first.

    Nothing is left but the result: the sample and the outputs are in the scratch folder.

    Args:
        options: the input, and options that all models share.
        models: hub ids, folders, or demo; the first is the one to beat.
        qrels_uri: the judgments.
        n_queries: judged queries to sample.
        price_per_hour: of a device, for the cost.
        say: shows a remark about the devices.

    Raises:
        InputError: bad input, models or judgments, or ir-measures is not installed.
        JobFailed: a model's job failed.
    """
    _check_options(options)
    ids = _checked_models(models, options)
    measures([_CUTOFF])  # whether they are installed
    judged = with_relevant(read_qrels(qrels_uri))
    with (
        _without_webhook(),
        tempfile.TemporaryDirectory(prefix="rankmill-", dir=settings().scratch) as scratch,
    ):
        sample = judged_sample(options, judged, n_queries, Path(scratch))
        runs = [
            _run(options, sample, model_id, Path(scratch) / f"out-{number}", say)
            for number, model_id in enumerate(ids)
        ]
        before, *changes = _comparisons([output for output, _ in runs], sample.judged)
    found = [
        _compared(model, manifest, change, before.after, price_per_hour)
        for model, (_, manifest), change in zip(models, runs, [None, *changes], strict=True)
    ]
    return ModelComparison(
        input_uri=options.input_uri,
        n_judged=len(judged),
        n_found=sample.n_found,
        n_queries=len(sample.judged),
        n_pairs=runs[0][1].n_rows,
        ndcg_before=before.before,
        price_per_hour=price_per_hour,
        models=tuple(found),
    )


@contextmanager
def _without_webhook() -> Iterator[None]:
    """Post no events of the jobs in the block; later jobs of this process post theirs."""
    before = os.environ.pop(_WEBHOOK, None)
    settings.cache_clear()
    try:
        yield
    finally:
        if before is not None:
            os.environ[_WEBHOOK] = before
        settings.cache_clear()


def _check_options(options: JobOptions) -> None:
    for name in _NOT_COMPARED:
        value = getattr(options, name)
        if value != JobOptions.model_fields[name].default:
            flag = "--model" if name == "model_id" else f"--{name.replace('_', '-')}"
            advice = "; name the models with --models" if name == "model_id" else ""
            raise InputError(f"{flag}: a comparison does not take it{advice}")


def _checked_models(models: Sequence[str], options: JobOptions) -> list[str]:
    """Return the models as a job names them from any folder, each once.

    Raises:
        InputError: there are fewer than two, one is there twice, or one cannot be used.
    """
    found: dict[str, str] = {}
    for model in models:
        if is_null_model(model):
            raise InputError(f"--models: {model} scores nothing, so it ranks nothing")
        is_folder = not is_built_in_model(model) and is_model_folder(model)
        model_id = os.path.realpath(Path(model).expanduser()) if is_folder else model
        if model_id in found:
            raise InputError(f"--models: {model} is there twice")
        folder = locate_model(model_id, has_template=options.has_template)
        check_lengths(options.model_copy(update={"model_id": model_id}), folder)
        found[model_id] = model
    if len(found) < 2:
        raise InputError("--models: give two or more, with commas between them")
    return list(found)


def _run(
    options: JobOptions,
    sample: JudgedSample,
    model_id: str,
    place: Path,
    say: Callable[[str], None],
) -> tuple[Output, Manifest]:
    """Score the sample with a model on this machine."""
    values = options.model_dump(exclude={"version", "minor"}) | sample.options
    job = check(JobSpec(**{**values, "model_id": model_id, "output_uri": str(place)}))
    handle, status = run_locally(lambda hold: submit_checked(job, hold=hold), say=say)
    manifest = handle.output.read_manifest()
    if not status.state.is_success or manifest is None:
        raise JobFailed(f"{model_id}: {status.reason or status.message or status.state}")
    return handle.output, manifest


def _comparisons(outputs: Sequence[Output], judged: Qrels) -> Iterator[Comparison]:
    """Yield the first output's comparison with the input, then the others' with the first."""
    yield evaluate(outputs[0], judged, recall_at=()).comparisons[0]
    for output in outputs[1:]:
        yield compare_ndcg(outputs[0], output, judged, [_CUTOFF])[0]


def _compared(
    model: str,
    manifest: Manifest,
    change: Comparison | None,
    first_ndcg: float,
    price_per_hour: float | None,
) -> ComparedModel:
    scoring, *_ = manifest.scoring
    pairs_per_s = manifest.n_rows / manifest.scoring_s
    priced = price_per_hour is not None
    return ComparedModel(
        model_id=model,
        path=scoring.path,
        recipe=scoring.recipe,
        precision=scoring.precision,
        max_length=scoring.max_length,
        ndcg=change.after if change else first_ndcg,
        change=change,
        pairs_per_s=pairs_per_s,
        truncated_share=manifest.n_truncated / manifest.n_scored if manifest.n_scored else 0.0,
        n_rejected=manifest.n_rejected,
        price_of_million=price_of_million(pairs_per_s, price_per_hour or 0) if priced else None,
    )
