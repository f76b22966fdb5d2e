"""One rule for an error in a job's work: leave the work, retry it, or fail its job.

Scoring a shard, preparing an input and finalizing a job all run in `attempt`:

    ClaimLost               another worker has the work; leave it
    PutBehind               raise it, so that the message goes to the end of its queue
    transient error         raise it, so that the task is retried
    blame on host/settings  decline the work, for another host; fail the job if none is left
    other RankmillError     fail the job, or refuse the message if its job is not known yet
    any other exception     a bug or a memory shortage: fail the job, or retry
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from structlog.contextvars import bound_contextvars

from rankmill.contract.job import JobRecord
from rankmill.dispatch import Dispatcher
from rankmill.errors import ClaimLost, PutBehind, RankmillError, unexpected
from rankmill.logs import get_logger

log = get_logger(__name__)


@dataclass
class Attempt:
    """One try at a piece of a job's work.

    Attributes:
        record: the job's record. The caller sets it once the message is known to be the job's own;
            from then on a permanent error fails the job.
        outcome: how the try ended if it met an error, in one line.
    """

    record: JobRecord | None = None
    outcome: str = ""


@contextmanager
def attempt(
    dispatcher: Dispatcher, job_id: str, output_uri: str, shard_index: int | None = None
) -> Iterator[Attempt]:
    """Do a piece of a job's work in this block, under the rule above.

    Raises:
        TransientError: a retry may help.
        Declined: this host cannot do it; the caller sends the message back.
        PutBehind: others come first; the caller sends the message back.
    """
    tried = Attempt()

    def give_up(error: RankmillError) -> None:
        if error.blame != "job":
            decline = dispatcher.decline
            tried.outcome = decline(job_id, output_uri, tried.record, error, shard_index)
        elif tried.record is None:
            dispatcher.refuse(job_id, output_uri, error)
            tried.outcome = "refused"
        else:
            dispatcher.fail(tried.record, error, shard_index)
            tried.outcome = f"failed its job: {error}"

    shard = {} if shard_index is None else {"shard_index": shard_index}
    with bound_contextvars(job_id=job_id, **shard):
        try:
            yield tried
        except ClaimLost as error:
            log.warning("claim lost", error=str(error))
            tried.outcome = f"given up: {error}"
        except PutBehind:
            raise
        except RankmillError as error:
            if error.transient:
                raise
            give_up(error)
        except Exception as error:
            bug = unexpected(error)
            if bug.transient:
                raise bug from error
            if tried.record is None and bug.blame == "job":
                raise
            log.exception("unexpected error")  # a retry would meet it again
            give_up(bug)
