"""Start jobs: on this machine to their end, or on a cluster.

from producer import run

job = run("candidates.parquet", "scored/", model="BAAI/bge-reranker-v2-m3", top_k=10)
print(job.table().to_pandas())
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Unpack

from producer.calls.bar import progress_bar
from producer.calls.job import Job
from producer.calls.keywords import JobKeywords, Place, in_python, options_of
from producer.jobs import submit as submitting
from producer.jobs.handle import JobHandle
from producer.jobs.run_job import run_job
from producer.jobs.status import JobStatus, succeeded
from rankmill.contract.job import JobSpec
from rankmill.devices.choice import check_device
from rankmill.errors import InputError
from rankmill.settings import with_variables


def run(
    input_uri: Place,
    output_uri: Place,
    *,
    overwrite: bool = False,
    device: str | None = None,
    progress: bool = True,
    **options: Unpack[JobKeywords],
) -> Job:
    """Score a job on this machine to its end, as `rankmill run` does.

    It starts a private Redis and a worker per device, and stops them. The same call again continues
    an interrupted job, and does nothing where the job is done.

    Args:
        input_uri: the input, on disk or on S3.
        output_uri: the output folder, on disk or on S3.
        overwrite: remove another job's result from the output first.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, as RANKMILL_DEVICE.
        progress: whether to show a progress bar.
        options: job options by the names of the flags, such as `model` and `top_k`.

    Raises:
        InputError: the input or an argument is bad; nothing was written.
        OutputTaken: the output holds another job's result, or other files.
        JobFailed: the job failed.
    """
    places = {"input_uri": input_uri, "output_uri": output_uri}

    def follow(handle: JobHandle, statuses: Iterator[JobStatus]) -> JobStatus:
        for status in statuses:
            show(str(status.state), status.n_pairs_done, status.n_rows)
        return status

    with in_python(), on_device(device), progress_bar(progress) as show:
        own = ("overwrite", "device", "progress")
        spec = options_of(JobSpec, "run", places, options, own)
        show("starting", 0, 0)
        done = run_job(spec, overwrite=overwrite, follow=follow, say=_say)
        succeeded(done.status)
    return Job.of(done.handle)


def submit(
    input_uri: Place,
    output_uri: Place,
    *,
    overwrite: bool = False,
    **options: Unpack[JobKeywords],
) -> Job:
    """Submit a job to the cluster of RANKMILL_BROKER_URL, as `rankmill submit` does.

    The same job again does nothing where it is done, and continues where it is not.

    Args:
        input_uri: the input, on disk or on S3.
        output_uri: the output folder, on disk or on S3.
        overwrite: remove another job's result from the output first.
        options: job options by the names of the flags, such as `model` and `top_k`.

    Raises:
        InputError: the input or an argument is bad; nothing was written.
        OutputTaken: the output holds another job's result, or other files.
        StorageRefused: the output cannot be written to, or its storage lets two writers both win;
            nothing was changed.
        BrokerUnavailable: Redis does not answer, or refuses writes; nothing was changed.
    """
    places = {"input_uri": input_uri, "output_uri": output_uri}
    with in_python():
        spec = options_of(JobSpec, "submit", places, options, ("overwrite",))
        return submit_spec(spec, overwrite=overwrite)


def submit_spec(spec: JobSpec, *, overwrite: bool = False) -> Job:
    """Submit a job as `submit` does, from a whole spec."""
    return Job.of(submitting.submit_spec(spec, overwrite=overwrite))


@contextmanager
def on_device(wanted: str | None) -> Iterator[None]:
    """Use a device for the block; None for that of the settings.

    Raises:
        InputError: it is not the name of a device.
    """
    try:
        changes = {} if wanted is None else {"RANKMILL_DEVICE": check_device(wanted)}
    except ValueError as error:
        raise InputError(f"device {error}") from None
    with with_variables(changes):
        yield


def _say(line: str) -> None:
    print(f"rankmill: {line}", file=sys.stderr)
