"""A task is retried by what its error says of itself, and by nothing else."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from rankmill.errors import InputError, RankmillError, StorageUnavailable
from tasks.base import Shell


class PassesLater(RankmillError):
    """A transient error that is not a TransientError."""

    transient = True


@pytest.mark.parametrize(
    ("error", "n_runs"),
    [
        (StorageUnavailable("away"), 3),
        (PassesLater("away"), 3),
        (SoftTimeLimitExceeded(), 3),
        (InputError("bad"), 1),
        (KeyError("a bug"), 1),
    ],
)
def test_a_task_is_retried_where_its_error_is_transient(error: Exception, n_runs: int) -> None:
    runs = []

    @Celery().task(base=Shell, max_retries=2)
    def fails() -> None:
        runs.append(1)
        raise error

    assert fails.apply().failed()
    assert len(runs) == n_runs
