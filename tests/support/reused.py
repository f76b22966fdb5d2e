"""Run whole jobs in this process, with known scores looked up as a worker does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from producer.inputs.source import read_source
from producer.jobs.check import check
from producer.jobs.plan import make_plan
from producer.reuse.earlier import Earlier
from producer.reuse.known_scores import look_up
from rankmill.contract.job import JobRecord, JobSpec
from rankmill.contract.plan import Plan
from rankmill.contract.results import Manifest
from rankmill.output.output import Job, Output
from tests.support.inputs import write
from worker import models
from worker.finalize import make_manifest
from worker.models import LoadedModel
from worker.shard.run import run_shard
from worker.shard.score import ShardWork


def job_of(rows: list[dict[str, Any]], folder: Path, model: object, **options: Any) -> JobSpec:
    values = {
        "input_uri": str(write(rows, folder / "in.parquet", row_group_size=50)),
        "output_uri": str(folder / "out"),
        "model_id": str(model),
        "precision": "fp32",
        **options,
    }
    return JobSpec(**values)


def done(spec: JobSpec, changed: Callable[[LoadedModel], LoadedModel] = lambda m: m) -> Manifest:
    """Run a job to its end.

    Args:
        changed: what scores instead of the job's model.
    """
    checked = check(spec)
    job = Job(checked.record, checked.plan or _looked_up(checked.record))
    output = job.output
    output.write_job(job.record)
    output.write_plan(job.plan)
    work = ShardWork(changed(models.load(job.spec)), "test", 64)
    for shard_index in range(job.plan.n_shards):
        run_shard(job, job.shard(shard_index), work)
    output.write_manifest(make_manifest(job, list(output.reports(job.job_id))))
    output.mark_success()
    manifest = output.read_manifest()
    assert manifest is not None
    return manifest


def _looked_up(record: JobRecord) -> Plan:
    spec = record.spec
    assert spec.reuse_from is not None
    source = read_source(spec.input_uri)
    plan = make_plan(record.job_id, spec, source)
    with tempfile.TemporaryDirectory() as scratch:
        earlier = Earlier.open(spec.reuse_from)
        known = look_up(spec, plan, earlier, Path(scratch), lambda *_: None)
    Output(spec.output_uri).write_known(known)
    return plan
