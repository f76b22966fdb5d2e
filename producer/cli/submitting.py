"""`rankmill run`, `submit` and `estimate`: jobs from a command line with job options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated

import typer

from producer.cli.console import Console, say, stderr, warn
from producer.cli.estimate_view import estimate_view
from producer.cli.following import finish, follow, say_already_done
from producer.cli.options import DeviceFlag, JsonFlag, PriceFlag, positive, takes_job
from producer.cli.progress import phase
from producer.estimates.estimate import SAMPLE_PAIRS
from producer.estimates.estimate import estimate as estimated
from producer.jobs.handle import JobHandle
from producer.jobs.status import JobStatus
from rankmill.contract.job import JobOptions, JobSpec

SampleFlag = Annotated[int, typer.Option(min=1, help="Rows to sample, spread over the input")]
CalibrateFlag = Annotated[
    bool, typer.Option(help="Measure speed by scoring a part of the sample, for about 10 s")
]
SpeedFlag = Annotated[
    float | None,
    typer.Option(callback=positive, help="Speed of a device, instead of measuring it"),
]
DevicesFlag = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of devices that will score", show_default="those of this machine"
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
    with ExitStack() as beginning:
        beginning.enter_context(phase(stderr, "starting"))
        from producer.jobs.run_job import run_job

        def follow_on(handle: JobHandle, statuses: Iterator[JobStatus]) -> JobStatus:
            beginning.close()
            return follow(handle, statuses)

        done = run_job(spec, overwrite=overwrite, follow=follow_on, say=warn)
    if done.was_done:
        say_already_done()
    finish(done.handle, done.status, as_json, with_preview=True)


@takes_job
def submit(spec: JobSpec, overwrite: OverwriteFlag = False, as_json: JsonFlag = False) -> None:
    """Submit a job to a cluster.

    The cluster is that of RANKMILL_BROKER_URL. Prints the job's id.
    """
    from producer.jobs.check import check
    from producer.jobs.submit import submit_checked

    job = check(spec)
    for note in job.notes:
        say(note)
    handle = submit_checked(job, overwrite=overwrite)
    facts = {"job_id": handle.job_id, "output_uri": handle.output.uri}
    print(json.dumps(facts) if as_json else handle.job_id)


@takes_job
def estimate(
    spec: JobOptions,
    sample: SampleFlag = SAMPLE_PAIRS,
    calibrate: CalibrateFlag = True,
    pairs_per_s: SpeedFlag = None,
    price_per_hour: PriceFlag = None,
    devices: DevicesFlag = None,
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Estimate a job's rows, tokens and time.

    Also truncation, duplicates and padding, from a sample. Writes nothing.
    """
    with stderr.status("sampling the input"):
        facts = estimated(
            spec,
            n_sample=sample,
            n_devices=devices,
            pairs_per_s=pairs_per_s,
            calibrate=calibrate,
            price_per_hour=price_per_hour,
        )
    if as_json:
        print(facts.model_dump_json())
    else:
        Console().print(estimate_view(facts))
