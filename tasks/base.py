"""The base of all task shells: it retries transient errors and logs others as one line."""

import random
from typing import Any

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded

from rankmill.contract.base import parse
from rankmill.contract.job import JobMessage
from rankmill.dispatch import dispatcher
from rankmill.errors import Declined, RankmillError, ReleaseTooOld


class Shell(Task):  # type: ignore[misc]  # Celery has no types
    """A task that is retried after a transient error.

    Attributes:
        max_retries: a task is not retried unless it sets this.
        longest_pause_s: the bound of the growing pause between tries, before jitter.
    """

    throws = (RankmillError,)
    max_retries = 0
    longest_pause_s = 60.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body; retry, send back or raise its errors, without their causes."""
        # Flower shows tracebacks, and a cause may have text that this project's errors mask.
        try:
            try:
                try:
                    return self.run(*args, **kwargs)
                except ReleaseTooOld as error:
                    return self.decline_unread(error, kwargs)
            except Declined as error:
                self.send_back()
                return f"declined: {error}"
            except (RankmillError, SoftTimeLimitExceeded) as error:
                # Only a task that may be retried sets a soft limit.
                if isinstance(error, RankmillError) and not error.transient:
                    raise
                raise self.again(error, self.pause_s()) from None
        except RankmillError as error:
            raise error from None

    def decline_unread(self, error: ReleaseTooOld, arguments: dict[str, Any]) -> str:
        """Decline a message of a newer release; one that names no job is retried.

        Raises:
            Declined: another worker may read it.
        """
        named = arguments.get("shard", arguments)
        if not isinstance(named, dict) or not {"job_id", "output_uri"} <= named.keys():
            raise self.again(error, self.pause_s()) from None
        ids = {name: named[name] for name in ("job_id", "output_uri")}
        job = parse(JobMessage, ids, str(self.name))
        shard_index = 0 if "shard" in arguments else None
        return dispatcher().decline(job.job_id, job.output_uri, None, error, shard_index)

    def send_back(self) -> None:
        """Send this task's message again as it is, for another worker."""
        shown = {name: self.request.get(name) for name in ("argsrepr", "kwargsrepr")}
        again = self.signature_from_request(self.request, retries=self.request.retries, **shown)
        again.apply_async()

    def pause_s(self) -> float:
        """Return 1, 2, 4 … seconds, and up to half as much again so that retries spread out."""
        pause_s: float = min(self.longest_pause_s, 2.0**self.request.retries)
        return pause_s * (1 + random.random() / 2)

    def again(self, error: Exception, pause_s: float) -> Exception:
        """Send this task's message again and return the exception that ends this try.

        Raises:
            Exception: `error`, if the task has been retried `max_retries` times.
        """
        # Else Celery would show the arguments themselves in place of their short description.
        shown = {name: self.request.get(name) for name in ("argsrepr", "kwargsrepr")}
        retry: Exception = self.retry(exc=error, countdown=pause_s, throw=False, **shown)
        return retry
