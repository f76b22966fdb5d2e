"""Rerank a table of this process: no Redis, no cluster, the same scores as a job's.

from producer import rerank

best = rerank(frame, model="BAAI/bge-reranker-v2-m3", top_k=10)

The rows go through a job in a private folder, so that every check and every score is a job's.
"""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, Unpack

import pyarrow as pa
import pyarrow.parquet as pq

from producer.calls.bar import Show, progress_bar
from producer.calls.frames import frame_of
from producer.calls.in_process import is_used, scoring
from producer.calls.keywords import JobKeywords, in_python, options_of
from producer.calls.launch import on_device
from producer.jobs.check import check
from producer.jobs.plan import MAX_SHARD_PAIRS
from producer.jobs.prepare_job import plan_of
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import Plan
from rankmill.contract.results import Manifest
from rankmill.errors import InputError
from rankmill.models.locate import locate_model
from rankmill.models.names import is_null_model
from rankmill.models.scoring_settings import check_lengths
from rankmill.output.output import Job
from rankmill.settings import settings, with_variables

DataT = TypeVar("DataT")

# What a table in memory has no use for, or a result that is not kept.
_ONLY_JOBS = ("input_version", "priority", "reuse_from", "for_reuse", "trec_run")

# One model is held, and settings are the process's.
_one_at_a_time = threading.RLock()


def rerank(
    data: DataT,
    *,
    device: str | None = None,
    progress: bool = True,
    **options: Unpack[JobKeywords],
) -> DataT:
    """Return the rows of a table with logit, score and rank, the best first in each query.

    It scores in this process, and needs no Redis. Scores, columns and their order are those of
    `rankmill run` with the same options. The model stays loaded for the next call; `free_model`
    frees it. Rejected rows are left out with a warning.

    Args:
        data: a pandas or Polars DataFrame, a DuckDB relation, a pyarrow Table, batch or reader, a
            Hugging Face Dataset, or another table with `__arrow_c_stream__`. It has the columns of
            an input, such as `query` and `document`; the rows of a query are together, or
            `cluster=True` brings them.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, as RANKMILL_DEVICE.
        progress: whether to show a progress bar.
        options: job options by the names of the flags, such as `model` and `top_k`.

    Returns:
        A table of the same library.

    Raises:
        InputError: an argument or the table is wrong, or torch is not installed.
        ModelUnavailable: the model is not here, not allowed, or cannot be loaded.
        JobFailed: more rows were rejected than `max_reject_rate` allows.
    """
    for name in _ONLY_JOBS:
        if options.get(name):
            raise InputError(f"rerank() has no {name}; run() and submit() have it")
    worker = scoring("rerank")
    with _one_at_a_time, _private_folder() as folder:
        written = str(folder / "table.parquet")
        places = {"input_uri": written, "output_uri": str(folder / "result")}
        with in_python({written: "the table"}):
            spec = options_of(JobSpec, "rerank", places, options, ("device", "progress"))
            with _variables(folder, device), progress_bar(progress) as show:
                frame = frame_of(data)
                _write(frame.table, written)
                job = _planned(spec, folder, show)
                n_rows = job.plan.n_rows
                manifest = worker.score(job, lambda doing, n_done: show(doing, n_done, n_rows))
                _warn_of_rejects(manifest)
                parts = [job.output.part_uri(n) for n in range(job.plan.n_shards)]
                table = pa.concat_tables(pq.ParquetFile(part).read() for part in parts)
    result: DataT = frame.back(table, job.spec.result_columns)
    return result


def free_model() -> None:
    """Free the model that `rerank` holds, and its memory."""
    if is_used():
        with _one_at_a_time:
            scoring("free_model").release()


@contextmanager
def _private_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rankmill-", dir=settings().scratch) as name:
        yield Path(name).resolve()


@contextmanager
def _variables(folder: Path, device: str | None) -> Iterator[None]:
    """Let the job use its folder and the device, whatever the settings allow to others."""
    changes = {"RANKMILL_RUNTIME": str(folder), "RANKMILL_SCRATCH": str(folder)}
    prefixes = settings().allowed_prefixes
    if prefixes is not None:
        changes["RANKMILL_ALLOWED_PREFIXES"] = ",".join((*prefixes, str(folder)))
    with with_variables(changes), on_device(device):
        yield


def _write(table: pa.Table, path: str) -> None:
    try:
        pq.write_table(table, path, compression="lz4")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"the table has a column that Parquet cannot hold: {first_line}") from None


def _planned(spec: JobSpec, folder: Path, show: Show) -> Job:
    if spec.shard_pairs is None:
        # No other worker waits for a share, and between two shards the device has less to do.
        spec = spec.model_copy(update={"shard_pairs": MAX_SHARD_PAIRS})
    checked = check(spec)
    spec = checked.record.spec
    show("loading the model", 0, 0)
    if not is_null_model(spec.model_id):
        model = locate_model(spec.model_id, spec.model_revision, has_template=spec.has_template)
        check_lengths(spec, model)
    plan: Plan | None = checked.plan
    if plan is None:
        plan = plan_of(settings(), checked.record, folder, lambda step, n: show(step, n, 0))
    return Job(checked.record, plan)


def _warn_of_rejects(manifest: Manifest) -> None:
    if manifest.n_rejected:
        reasons = ", ".join(f"{why}: {n:,}" for why, n in manifest.rejects_by_reason.items())
        line = f"{manifest.n_rejected:,} of {manifest.n_rows:,} rows are left out ({reasons})"
        warnings.warn(line, stacklevel=3)
