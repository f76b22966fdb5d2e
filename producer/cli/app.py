"""`rankmill`: the commands and how they end.

Exit 0 done, 1 the job failed, 2 bad use or bad input, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from producer import control
from producer.cli.estimate_view import estimate_view
from producer.cli.options import takes_job
from producer.cli.render import (
    evaluation_facts,
    evaluation_table,
    jobs_table,
    preview_table,
    result_facts,
    show_progress,
    status_facts,
)
from producer.estimate import SAMPLE_PAIRS
from producer.estimate import estimate as estimated
from producer.evaluate import evaluate
from producer.follow import JobHandle, JobStatus, find_job, list_jobs, succeeded
from producer.preview import preview
from producer.qrels import read_qrels
from rankmill import models
from rankmill.errors import RankmillError
from rankmill.settings import CHECKOUT, settings
from rankmill.spec import JobOptions, JobSpec

app = typer.Typer(
    help="Rerank very large candidate lists offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_console = Console(stderr=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print facts as JSON on stdout")]
OverwriteFlag = Annotated[
    bool, typer.Option("--overwrite", help="Remove another job's result from OUTPUT first")
]
DeviceFlag = Annotated[
    Literal["auto", "cpu"], typer.Option("--device", help="auto (every GPU, else CPU) or cpu")
]
JobArgument = Annotated[str, typer.Argument(help="The job's output folder or its id")]


def main() -> None:
    """The console script: one line on stderr for every error of ours."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except RankmillError as error:
        if debug:
            raise
        _console.print(f"rankmill: {error}", style="red", markup=False, emoji=False, soft_wrap=True)
        sys.exit(error.exit_code)


@app.command()
@takes_job
def run(
    spec: JobSpec,
    overwrite: OverwriteFlag = False,
    device: DeviceFlag = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Score a job on this machine: private Redis, a worker per device, then stop them."""
    from producer.local import local_cluster
    from producer.submit import check, submit_checked

    job = check(spec)  # bad input is told before anything is started
    if not models.is_null(spec.model_id):
        models.locate(spec.model_id, spec.model_revision)
    with local_cluster(device) as cluster:
        _use_broker(cluster.broker_url)
        handle = submit_checked(job, overwrite=overwrite)
        try:
            status = show_progress(_checked(handle, cluster.check), _console)
        except KeyboardInterrupt:
            _console.print(
                f"rankmill: interrupted; the same command goes on where this one stopped "
                f"({handle.output.uri})",
                soft_wrap=True,
            )
            sys.exit(130)
    _finish(handle, status, as_json, with_preview=True)


@app.command()
@takes_job
def submit(spec: JobSpec, overwrite: OverwriteFlag = False, as_json: JsonFlag = False) -> None:
    """Submit a job to the cluster of RANKMILL_BROKER_URL; prints the job's id."""
    from producer.submit import submit_spec

    handle = submit_spec(spec, overwrite=overwrite)
    facts = {"job_id": handle.job_id, "output_uri": handle.output.uri}
    print(json.dumps(facts) if as_json else handle.job_id)


@app.command()
@takes_job
def estimate(
    spec: JobOptions,
    sample: Annotated[
        int, typer.Option(min=1, help="Rows to look at, from all over the input")
    ] = SAMPLE_PAIRS,
    calibrate: Annotated[
        bool, typer.Option(help="Score some of the sample, some 10 s, to see how fast it goes")
    ] = True,
    pairs_per_s: Annotated[
        float | None, typer.Option(min=1e-9, help="A device's pace, instead of calibrating")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices that will score  [those of this machine]")
    ] = None,
    device: DeviceFlag = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Tell what a job would come to: rows, tokens, truncation, waste, time; writes nothing."""
    with _console.status("looking at the input"):
        found = estimated(
            spec,
            n_sample=sample,
            device=device,
            n_devices=devices,
            pairs_per_s=pairs_per_s,
            calibrate=calibrate,
        )
    if as_json:
        print(found.model_dump_json())
    else:
        Console().print(estimate_view(found))


@app.command()
def status(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show where a job stands."""
    _print_status(find_job(job).status(), as_json)


@app.command()
def watch(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Follow a job until it ends; interrupting this does not hurt the job."""
    handle = find_job(job)
    try:
        last = show_progress(handle.watch(), _console)
    except KeyboardInterrupt:
        _console.print(f"rankmill: no longer watching; job {handle.job_id} goes on")
        sys.exit(130)
    _finish(handle, last, as_json, with_preview=False)


@app.command()
def cancel(job: JobArgument) -> None:
    """Stop a job within a shard; what was scored is kept."""
    control.cancel(find_job(job))


@app.command()
def resume(job: JobArgument) -> None:
    """Go on with a job that failed, was cancelled or was lost: only what has no report yet."""
    handle = find_job(job)
    control.resume(handle)
    print(handle.job_id)


@app.command()
def retry_rejects(job: JobArgument) -> None:
    """Run the shards again that have rejected rows."""
    handle = find_job(job)
    n_shards = control.retry_rejects(handle)
    print(f"{handle.job_id}: {n_shards} shards are run again" if n_shards else "no rejects")


@app.command()
def jobs(as_json: JsonFlag = False) -> None:
    """List what runs now and what ran lately."""
    listed = list_jobs()
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in listed]))
    else:
        Console().print(jobs_table(listed))


@app.command("eval")
def evaluate_job(
    job: JobArgument,
    qrels: Annotated[
        str, typer.Option("--qrels", help="Judgments: TREC, TSV as BEIR has it, or Parquet")
    ],
    recall_at: Annotated[
        list[int] | None, typer.Option("--recall-at", min=1, help="Cutoffs of recall [100]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a finished job by judgments, before and after: nDCG, MRR, recall."""
    evaluation = evaluate(find_job(job).output, read_qrels(qrels), recall_at or [100])
    if as_json:
        print(evaluation.model_dump_json())
    else:
        Console().print(evaluation_table(evaluation), evaluation_facts(evaluation), sep="\n")


@app.command()
def worker(device: DeviceFlag = "auto", name: str = "rankmill") -> None:
    """Run Celery workers of this machine, one per device, for RANKMILL_BROKER_URL."""
    from producer.local import devices, worker_command

    settings()  # a wrong setting is told here, not by a worker
    found = devices(device)
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise typer.BadParameter(
            f"this machine has several devices ({names}): start one worker for each, with "
            "CUDA_VISIBLE_DEVICES=N rankmill worker"
        )
    command = worker_command(f"{name}-{found[0].name}")
    os.chdir(CHECKOUT)
    os.execve(command[0], command, {**os.environ, **found[0].environment})


def _checked(handle: JobHandle, check: Any) -> Any:
    for current in handle.watch():
        check()
        yield current


def _finish(handle: JobHandle, status: JobStatus, as_json: bool, *, with_preview: bool) -> None:
    manifest = handle.output.read_manifest()
    if as_json or manifest is None or not status.state.is_success:
        _print_status(status, as_json)
    else:
        console = Console()
        for shown in preview(handle.output.load_job()) if with_preview else []:
            console.print(preview_table(shown))
        console.print(result_facts(manifest), soft_wrap=True)
    succeeded(status)


def _print_status(status: JobStatus, as_json: bool) -> None:
    if as_json:
        print(status.model_dump_json())
    else:
        Console().print(status_facts(status), soft_wrap=True)


def _use_broker(url: str) -> None:
    """Point this process at the private broker, before anything has connected."""
    os.environ["RANKMILL_BROKER_URL"] = url
    settings.cache_clear()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
