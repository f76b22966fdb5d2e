"""`rankmill`: the commands and how they end.

Exit 0 done, 1 the job failed, 2 bad use or bad input, 130 interrupted.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Annotated

import typer

from producer.cli import models as models_commands
from producer.cli import schedule
from producer.cli.console import Console
from producer.cli.doctor import doctor
from producer.cli.estimate_view import estimate_view
from producer.cli.help import PanelCommand, example
from producer.cli.job_view import jobs_table, preview_table, result_facts, status_facts
from producer.cli.judging import compare_jobs, evaluate_job
from producer.cli.options import DeviceFlag, JobArgument, JsonFlag, takes_job
from producer.cli.progress import show_progress
from producer.cli.serve import exporter, flower, worker
from producer.estimates.estimate import SAMPLE_PAIRS
from producer.estimates.estimate import estimate as estimated
from producer.jobs import control
from producer.jobs.handle import JobHandle, find_job
from producer.jobs.listing import list_jobs, list_local_jobs
from producer.jobs.local_run import run_locally
from producer.jobs.preview import preview
from producer.jobs.status import JobStatus, succeeded
from producer.jobs.submit import check_reject_rate
from rankmill import storage
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.errors import BrokerUnavailable, RankmillError, unexpected
from rankmill.models.locate import locate_model
from rankmill.models.names import is_null_model
from rankmill.models.scoring_settings import check_max_length
from rankmill.output.local_run import Hold
from rankmill.report import write_report
from rankmill.settings import settings, unknown_variables

app = typer.Typer(
    help="Rerank very large candidate lists offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_console = Console(stderr=True)

PlaceFlag = Annotated[
    bool | None,
    typer.Option(
        "--local/--cluster",
        help="Continue on this machine or on the cluster",
        show_default="where it ran before",
    ),
]
OverwriteFlag = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Remove another job's result from OUTPUT first",
        rich_help_panel="Output",
    ),
]


def main() -> None:
    """Run the command of sys.argv; print a RankmillError as one line on stderr."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows a `?`
    for line in unknown_variables():
        _say(line, "yellow")
    try:
        app()
    except (RankmillError, MemoryError) as error:
        if debug:
            raise
        known = error if isinstance(error, RankmillError) else unexpected(error)
        _console.print(f"rankmill: {known}", style="red", markup=False, emoji=False, soft_wrap=True)
        sys.exit(known.exit_code)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"rankmill {version('rankmill')}")
        raise typer.Exit


@app.callback()
def general(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit"
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback on an error; goes anywhere")
    ] = False,
) -> None:
    """Rerank very large candidate lists offline."""


@app.command(
    cls=PanelCommand, epilog=example("run candidates.parquet scored/ --model demo --top-k 10")
)
@takes_job
def run(
    spec: JobSpec,
    overwrite: OverwriteFlag = False,
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a job on this machine.

    Starts a private Redis and a worker per device, and stops them at the end.
    """
    from producer.jobs.check import check
    from producer.jobs.submit import submit_checked

    job = check(spec)  # bad input is reported before anything is started
    if not is_null_model(spec.model_id):
        folder = locate_model(spec.model_id, spec.model_revision)
        check_max_length(spec.max_length, spec.model_id, folder)
    control.check_not_elsewhere(job.output)
    handle, status = run_locally(
        lambda hold: submit_checked(job, overwrite=overwrite, hold=hold), _follow, _warn
    )
    _finish(handle, status, as_json, with_preview=True)


@app.command(cls=PanelCommand, epilog=example("submit candidates.parquet scored/ --top-k 10"))
@takes_job
def submit(spec: JobSpec, overwrite: OverwriteFlag = False, as_json: JsonFlag = False) -> None:
    """Submit a job to a cluster.

    The cluster is that of RANKMILL_BROKER_URL. Prints the job's id.
    """
    from producer.jobs.submit import submit_spec

    handle = submit_spec(spec, overwrite=overwrite)
    facts = {"job_id": handle.job_id, "output_uri": handle.output.uri}
    print(json.dumps(facts) if as_json else handle.job_id)


@app.command(cls=PanelCommand, epilog=example("estimate candidates.parquet --model demo"))
@takes_job
def estimate(
    spec: JobOptions,
    sample: Annotated[
        int, typer.Option(min=1, help="Rows to sample, spread over the input")
    ] = SAMPLE_PAIRS,
    calibrate: Annotated[
        bool, typer.Option(help="Measure speed by scoring a part of the sample, for about 10 s")
    ] = True,
    pairs_per_s: Annotated[
        float | None,
        typer.Option(min=1e-9, help="Speed of a device, instead of measuring it"),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of devices that will score", show_default="those of this machine"
        ),
    ] = None,
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Estimate a job's rows, tokens and time.

    Also truncation, duplicates and padding, from a sample. Writes nothing.
    """
    with _console.status("sampling the input"):
        facts = estimated(
            spec,
            n_sample=sample,
            n_devices=devices,
            pairs_per_s=pairs_per_s,
            calibrate=calibrate,
        )
    if as_json:
        print(facts.model_dump_json())
    else:
        Console().print(estimate_view(facts))


@app.command(epilog=example("status scored/"))
def status(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show the state of a job."""
    _print_status(find_job(job).status(), as_json)


@app.command(epilog=example("watch scored/"))
def watch(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Follow a job until it ends.

    Interrupting it does not stop the job.
    """
    handle = find_job(job)
    try:
        last = show_progress(handle.watch(), _console)
    except KeyboardInterrupt:
        _say(f"no longer watching; job {handle.job_id} is {handle.status().state}")
        sys.exit(130)
    _finish(handle, last, as_json, with_preview=False)


@app.command(epilog=example("cancel scored/"))
def cancel(job: JobArgument) -> None:
    """Cancel a job and keep its scores.

    The job stops within a shard. `rankmill resume` continues it.
    """
    handle = find_job(job)
    control.cancel(handle)
    _say(f"job {handle.job_id} is cancelled; rankmill resume {handle.output.uri} continues it")


@app.command(epilog=example("resume scored/"))
def resume(
    job: JobArgument,
    max_reject_rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of rejected rows above which the job fails",
            show_default="the job's own",
        ),
    ] = None,
    place: PlaceFlag = None,
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Continue a failed, cancelled or lost job.

    Finished shards are not run again.
    """
    handle = find_job(job)
    if not _goes_here(handle, place):
        control.resume(handle, max_reject_rate=max_reject_rate, local=False)
        print(handle.job_id)
    elif handle.output.state().is_success:
        if max_reject_rate is not None:
            check_reject_rate(handle.output, max_reject_rate)
        _finish(handle, handle.status(), as_json, with_preview=False)
    else:

        def change(here: JobHandle, hold: Hold) -> None:
            control.resume(here, hold, max_reject_rate=max_reject_rate)

        _go_on_here(handle, change, as_json)


@app.command(epilog=example("retry-rejects scored/"))
def retry_rejects(
    job: JobArgument,
    place: PlaceFlag = None,
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Run shards with rejected rows again."""
    handle = find_job(job)
    if not control.rejected_shards(handle):
        print("no rejects")
    elif _goes_here(handle, place):
        _go_on_here(handle, lambda here, hold: control.retry_rejects(here, hold), as_json)
    else:
        n_shards = control.retry_rejects(handle, local=False)
        print(f"{handle.job_id}: {n_shards} shards are run again")


@app.command(epilog=example("report scored/"))
def report(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Write a job's HTML report again.

    Works for finished and unfinished jobs. Prints the path of the page.
    """
    place = write_report(find_job(job).output)
    print(json.dumps({"report_uri": place}) if as_json else place)


@app.command(epilog=example("jobs"))
def jobs(as_json: JsonFlag = False) -> None:
    """List running and recent jobs.

    Shows those of the cluster and those of `rankmill run` on this machine.
    """
    listed, away = list_local_jobs(), None
    try:
        listed = list_jobs() + listed
    except BrokerUnavailable as error:
        away = error
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in listed]))
    else:
        # Off a terminal nothing is clipped or wrapped: a line is a job.
        out = Console()
        (out if out.is_terminal else Console(width=10_000)).print(jobs_table(listed))
    if away is None:
        return
    if "broker_url" in settings().model_fields_set:
        raise away
    _say("these are the runs of this machine; no cluster is set in RANKMILL_BROKER_URL")


app.command("eval", epilog=example("eval scored/ --qrels judgments.qrels"))(evaluate_job)
app.command("diff", epilog=example('diff monday/ tuesday/ --fail-if "churn@10>0.3"'))(compare_jobs)
app.add_typer(schedule.app, name="schedule")
app.add_typer(models_commands.app, name="models")
app.command(epilog=example("doctor"))(doctor)
app.command(epilog=example("worker"))(worker)
app.command(epilog=example("exporter"))(exporter)
app.command(epilog=example("flower --port 5555"))(flower)


def _goes_here(handle: JobHandle, is_local: bool | None) -> bool:
    return control.is_local(handle) if is_local is None else is_local


def _go_on_here(handle: JobHandle, change: control.Change, as_json: bool) -> None:
    _, status = control.continue_locally(handle, change, _follow, _warn)
    _finish(handle, status, as_json, with_preview=False)


def _follow(handle: JobHandle, statuses: Iterator[JobStatus]) -> JobStatus:
    try:
        return show_progress(statuses, _console)
    except KeyboardInterrupt:
        _say(
            "interrupted; run the same command again to continue, or rankmill resume "
            f"{handle.output.uri}"
        )
        sys.exit(130)


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


def _say(line: str, style: str = "") -> None:
    _console.print(
        f"rankmill: {line}", style=style, markup=False, highlight=False, emoji=False, soft_wrap=True
    )


def _warn(line: str) -> None:
    _say(line, "yellow")
