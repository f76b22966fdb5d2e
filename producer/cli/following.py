"""Commands on a submitted job: `rankmill status`, `watch`, `cancel`, `resume` and others."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from producer.cli.console import Console, say, stderr, warn
from producer.cli.fact_lines import count_text
from producer.cli.job_view import jobs_table, preview_table, result_facts, status_facts
from producer.cli.options import DeviceFlag, JobArgument, JsonFlag, PriceFlag
from producer.cli.progress import show_progress
from producer.jobs import control
from producer.jobs.handle import JobHandle, find_job
from producer.jobs.listing import list_jobs, list_local_jobs
from producer.jobs.preview import preview
from producer.jobs.status import JobStatus, succeeded
from producer.jobs.submit import check_reject_rate
from producer.quality.job_page import write_page
from rankmill import storage
from rankmill.errors import BrokerUnavailable
from rankmill.output.local_run import Hold
from rankmill.report.commands import result_commands
from rankmill.settings import settings

PlaceFlag = Annotated[
    bool | None,
    typer.Option(
        "--local/--cluster",
        help="Continue on this machine or on the cluster",
        show_default="where it ran before",
    ),
]


def status(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show the state of a job."""
    _print_status(find_job(job).status(), as_json)


def watch(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Follow a job until it ends.

    Interrupting it does not stop the job.
    """
    handle = find_job(job)
    try:
        last = show_progress(handle.watch(), stderr)
    except KeyboardInterrupt:
        say(f"no longer watching; job {handle.job_id} is {handle.status().state}")
        sys.exit(130)
    finish(handle, last, as_json, with_preview=False)


def cancel(job: JobArgument) -> None:
    """Cancel a job and keep its scores.

    The job stops within a shard. `rankmill resume` continues it.
    """
    handle = find_job(job)
    control.cancel(handle)
    say(f"job {handle.job_id} is cancelled; rankmill resume {handle.output.uri} continues it")


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
    if not (control.is_local(handle) if place is None else place):
        control.resume(handle, max_reject_rate=max_reject_rate, local=False)
        print(handle.job_id)
    elif handle.output.state().is_success:
        if max_reject_rate is not None:
            check_reject_rate(handle.output, max_reject_rate)
        say_already_done()
        finish(handle, handle.status(), as_json, with_preview=False)
    else:

        def change(here: JobHandle, hold: Hold) -> None:
            control.resume(here, hold, max_reject_rate=max_reject_rate)

        _continue_locally(handle, change, as_json)


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
    elif control.is_local(handle) if place is None else place:
        _continue_locally(handle, control.retry_rejects, as_json)
    else:
        n_shards = control.retry_rejects(handle, local=False)
        are = "is" if n_shards == 1 else "are"
        print(f"{handle.job_id}: {count_text(n_shards, 'shard')} {are} run again")


def report(
    job: JobArgument,
    qrels: Annotated[
        str | None, typer.Option("--qrels", help="Judgments, to show nDCG before and after")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="JOB", help="Earlier job, to show both side by side"),
    ] = None,
    price_per_hour: PriceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a job's HTML report again.

    Works for finished and unfinished jobs. Prints the path of the page.
    """
    output = find_job(job).output
    old = find_job(compare).output if compare is not None else None
    place = write_page(output, qrels=qrels, compare=old, price_per_hour=price_per_hour)
    print(json.dumps({"report_uri": place}) if as_json else place)


def jobs(as_json: JsonFlag = False) -> None:
    """List running and recent jobs.

    Shows those of the cluster and those of `rankmill run` on this machine.
    """
    settings()  # a wrong one is one error, and not one for each job
    listed, unavailable = list_local_jobs(), None
    try:
        listed = list_jobs() + listed
    except BrokerUnavailable as error:
        unavailable = error
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in listed]))
    else:
        # Off a terminal nothing is clipped or wrapped: a line is a job.
        out = Console()
        (out if out.is_terminal else Console(width=10_000)).print(jobs_table(listed))
    if unavailable is None:
        return
    if "broker_url" in settings().model_fields_set:
        raise unavailable
    say("these are the runs of this machine; no cluster is set in RANKMILL_BROKER_URL")


def _continue_locally(handle: JobHandle, change: control.Change, as_json: bool) -> None:
    _, status = control.continue_locally(handle, change, follow, warn)
    finish(handle, status, as_json, with_preview=False)


def follow(handle: JobHandle, statuses: Iterator[JobStatus]) -> JobStatus:
    """Show the statuses of a local run, and return the last one; exit 130 on an interrupt."""
    try:
        return show_progress(statuses, stderr)
    except KeyboardInterrupt:
        say(
            "interrupted; run the same command again to continue, or rankmill resume "
            f"{handle.output.uri}"
        )
        sys.exit(130)


def say_already_done() -> None:
    """Print that a job was finished before the command."""
    say("already done, nothing was run")


def finish(handle: JobHandle, status: JobStatus, as_json: bool, *, with_preview: bool) -> None:
    """Print the end of a job.

    Raises:
        JobFailed: it failed or was cancelled.
    """
    manifest = handle.output.read_manifest()
    if as_json or manifest is None or not status.state.is_success:
        _print_status(status, as_json)
    else:
        console = Console()
        for shown in preview(handle.output.load_job()) if with_preview else []:
            console.print(preview_table(shown))
        has_report = storage.exists(handle.output.report_uri)
        report_uri = handle.output.report_uri if has_report else None
        console.print(result_facts(manifest, status, report_uri), soft_wrap=True)
        if with_preview and stderr.is_terminal:
            for purpose, command in result_commands(handle.output.uri, handle.output.read_plan()):
                say(f"{purpose}: {command}")
    succeeded(status)


def _print_status(status: JobStatus, as_json: bool) -> None:
    if as_json:
        print(status.model_dump_json())
    else:
        Console().print(status_facts(status), soft_wrap=True)
