"""`rankmill run`, `submit` and `estimate`: jobs from a command line with job options."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from producer.cli.console import Console, stderr, warn
from producer.cli.estimate_view import estimate_view
from producer.cli.following import finish, follow, say_already_done
from producer.cli.options import DeviceFlag, JsonFlag, PriceFlag, positive, takes_job
from producer.estimates.estimate import SAMPLE_PAIRS
from producer.estimates.estimate import estimate as estimated
from producer.jobs import control
from producer.jobs.local_run import run_locally
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.models.locate import locate_model
from rankmill.models.names import is_null_model
from rankmill.models.scoring_settings import check_lengths

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
    from producer.jobs.check import check
    from producer.jobs.submit import submit_checked

    job = check(spec)  # bad input is reported before anything is started
    if not is_null_model(spec.model_id):
        folder = locate_model(spec.model_id, spec.model_revision, has_template=spec.has_template)
        check_lengths(spec, folder)
    control.check_not_elsewhere(job.output)
    before = job.output.read_manifest()
    handle, status = run_locally(
        lambda hold: submit_checked(job, overwrite=overwrite, hold=hold), follow, warn
    )
    if before is not None and handle.output.read_manifest() == before and status.state.is_success:
        say_already_done()
    finish(handle, status, as_json, with_preview=True)


@takes_job
def submit(spec: JobSpec, overwrite: OverwriteFlag = False, as_json: JsonFlag = False) -> None:
    """Submit a job to a cluster.

    The cluster is that of RANKMILL_BROKER_URL. Prints the job's id.
    """
    from producer.jobs.submit import submit_spec

    handle = submit_spec(spec, overwrite=overwrite)
    facts = {"job_id": handle.job_id, "output_uri": handle.output.uri}
    print(json.dumps(facts) if as_json else handle.job_id)


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
        typer.Option(callback=positive, help="Speed of a device, instead of measuring it"),
    ] = None,
    price_per_hour: PriceFlag = None,
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
