"""Import the modules of a container once, so that their bytecode is in the image.

python docker/warm.py control|worker

Compiling at every start costs seconds on a read-only file system. Compiling all installed modules
would triple the size.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

from producer.cli.app import whole_app
from rankmill.settings import CHECKOUT

COMMON = (
    "producer.jobs.submit",
    "producer.cluster.supervise",
    "tasks.jobs",
    "worker.finalize",
    "celery.apps.worker",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "billiard.popen_spawn_posix",
)
CONTROL = (
    "producer.jobs.prepare_job",
    "producer.pull",
    "huggingface_hub.file_download",
    "huggingface_hub.hf_api",
    "duckdb",
    "matplotlib.pyplot",
    "ir_measures",
    "flower.command",
    "flower.app",
    "redbeat.schedulers",
    "celery.apps.beat",
)


def main() -> None:
    """Import the modules of the role, and run the code that imports others late."""
    role = sys.argv[1]
    for name in (*COMMON, *(CONTROL if role == "control" else ())):
        importlib.import_module(name)
    whole_app()
    if role == "control":
        measure_and_draw()
    else:
        score_the_demo()
        import_transformers()
    # Celery finds its commands by name when it starts.
    subprocess.run([sys.executable, "-m", "celery", "-A", "tasks", "worker", "--help"], check=True)


def measure_and_draw() -> None:
    """Run the late imports of `rankmill eval` and of a job's report page."""
    import io

    import ir_measures
    from matplotlib.figure import Figure

    judged, run = [ir_measures.Qrel("q", "d", 1)], [ir_measures.ScoredDoc("q", "d", 1.0)]
    measure = ir_measures.nDCG @ 10
    assert [each.value for each in ir_measures.iter_calc([measure], judged, run)] == [1.0]
    figure = Figure()
    figure.subplots().set_title("warm")
    figure.savefig(io.BytesIO(), format="svg")


def score_the_demo() -> None:
    """Score a shard of the demo data on this machine's CPU."""

    from producer.jobs.check import plan_job
    from rankmill.contract.job import JobSpec
    from worker import models
    from worker.shard.run import run_shard
    from worker.shard.score import ShardWork

    with tempfile.TemporaryDirectory() as folder:
        spec = JobSpec(
            input_uri=str(CHECKOUT / "examples" / "packages.parquet"),
            output_uri=str(Path(folder, "out")),
            model_id="demo",
            top_k=1,
            shard_pairs=500,
        )
        job = plan_job(spec)
        work = ShardWork(models.load(job.spec), "build", 4096)
        job.output.write_job(job.record)
        job.output.write_plan(job.plan)
        report = run_shard(job, job.shard(0), work)
        assert report.n_rejected == 0


def import_transformers() -> None:
    """Import what models without a packed forward have in common.

    sympy stays out: its bytecode is 16 MB, and saves such a model 1.7 s of CPU when it is loaded.
    """
    from worker.engine.lean_loading import lean_loading

    with lean_loading():
        importlib.import_module("transformers.models.distilbert.modeling_distilbert")
        importlib.import_module("transformers.models.auto.modeling_auto")


if __name__ == "__main__":
    main()
