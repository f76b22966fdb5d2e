"""`rankmill`: the commands and how they end.

Exit 0 done, 1 the job failed, 2 bad use or bad input, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from producer import control
from producer.cli import models as models_commands
from producer.cli import schedule
from producer.cli.doctor import doctor
from producer.cli.estimate_view import estimate_view
from producer.cli.judging import compare_jobs, evaluate_job
from producer.cli.options import DeviceFlag, JobArgument, JsonFlag, takes_job
from producer.cli.private import settle
from producer.cli.render import (
    jobs_table,
    preview_table,
    result_facts,
    show_progress,
    status_facts,
)
from producer.cli.serve import exporter, flower, worker
from producer.estimate import SAMPLE_PAIRS
from producer.estimate import estimate as estimated
from producer.follow import JobHandle, JobStatus, find_job, list_jobs, succeeded
from producer.preview import preview
from rankmill import models, storage
from rankmill.errors import RankmillError, unexpected
from rankmill.report import write_report
from rankmill.settings import settings
from rankmill.spec import JobOptions, JobSpec

app = typer.Typer(
    help="Rerank very large candidate lists offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_console = Console(stderr=True)

OverwriteFlag = Annotated[
    bool, typer.Option("--overwrite", help="Remove another job's result from OUTPUT first")
]


def main() -> None:
    """The console script: one line on stderr for every error of ours."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except (RankmillError, MemoryError) as error:
        if debug:
            raise
        known = error if isinstance(error, RankmillError) else unexpected(error)
        _console.print(f"rankmill: {known}", style="red", markup=False, emoji=False, soft_wrap=True)
        sys.exit(known.exit_code)


@app.command()
@takes_job
def run(
    spec: JobSpec,
    overwrite: OverwriteFlag = False,
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a job on this machine: private Redis, a worker per device, then stop them."""
    from producer.local import devices, local_cluster
    from producer.submit import check, submit_checked

    job = check(spec)  # bad input is told before anything is started
    if not models.is_null(spec.model_id):
        models.locate(spec.model_id, spec.model_revision)
    found = devices(settings().device)
    for surprise in sorted({each.surprise for each in found if each.surprise}):
        _console.print(
            f"rankmill: scoring on {', '.join(each.name for each in found)}: {surprise}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    with local_cluster(found) as cluster:
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
        settle(handle, status.state, _console)
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
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell what a job would come to: rows, tokens, truncation, waste, time; writes nothing."""
    with _console.status("looking at the input"):
        found = estimated(
            spec,
            n_sample=sample,
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
def report(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Make the page about a job anew, finished or not, and print where it is."""
    place = write_report(find_job(job).output)
    print(json.dumps({"report_uri": place}) if as_json else place)


@app.command()
def jobs(as_json: JsonFlag = False) -> None:
    """List what runs now and what ran lately."""
    listed = list_jobs()
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in listed]))
    else:
        Console().print(jobs_table(listed))


app.command("eval")(evaluate_job)
app.command("diff")(compare_jobs)
app.add_typer(schedule.app, name="schedule")
app.add_typer(models_commands.app, name="models")
app.command()(doctor)
app.command()(worker)
app.command()(exporter)
app.command()(flower)


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
        has_report = storage.exists(handle.output.report_uri)
        report_uri = handle.output.report_uri if has_report else None
        console.print(result_facts(manifest, report_uri), soft_wrap=True)
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
