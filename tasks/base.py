"""The base of all task shells: it waits for Redis, and retries other transient errors."""

import random
import time
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded

from rankmill.contract.base import parse
from rankmill.contract.job import JobMessage
from rankmill.dispatch import dispatcher
from rankmill.errors import (
    BrokerUnavailable,
    CommandRejected,
    Declined,
    PutBehind,
    RankmillError,
    ReleaseTooOld,
)
from rankmill.ledger.client import broker_errors, unavailable
from rankmill.logs import get_logger

log = get_logger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 2.0


class Shell(Task):
    """A task that is retried after a transient error.

    Attributes:
        max_retries: a task is not retried unless it sets this.
        longest_pause_s: the bound of the growing pause between tries, before jitter.
    """

    throws = (RankmillError,)
    Request = "worker.pauses:PausingRequest"  # by name, since only a worker may import it
    max_retries = 0
    longest_pause_s = 60.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body; retry, send back or raise its errors, without their causes."""
        # Flower shows tracebacks, and a cause may have text that this project's errors mask.
        try:
            try:
                return self._run_with_redis(lambda: self._run_or_decline(args, kwargs))
            except (RankmillError, SoftTimeLimitExceeded) as error:
                # Only a task that may be retried sets a soft limit.
                if isinstance(error, RankmillError) and not error.transient:
                    raise
                raise self.again(error, self.pause_s()) from None
        except RankmillError as error:
            raise error from None

    def _run_or_decline(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            try:
                return self.run(*args, **kwargs)
            except ReleaseTooOld as error:
                return self.decline_unread(error, kwargs)
        except (Declined, PutBehind) as error:
            self.send_back()
            raise Retry(exc=error, when=0) from None

    def decline_unread(self, error: ReleaseTooOld, arguments: dict[str, Any]) -> str:
        """Decline a message of a newer release; retry one that names no job.

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
        """Send this task's message again as it is, to the end of its queue."""
        shown = {name: self.request.get(name) for name in ("argsrepr", "kwargsrepr")}
        again = self.signature_from_request(self.request, retries=self.request.retries, **shown)
        with broker_errors():
            again.apply_async()

    def _run_with_redis(self, work: Callable[[], Any]) -> Any:
        """Do the work; while Redis is away or refuses commands, wait and do it again.

        Celery's retry is a message, which Redis would not take then. Work may run twice: it skips
        what is done already.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return work()
            except BrokerUnavailable as error:
                if not self.is_waited_for(error):
                    raise
                log.warning("task waits for Redis", error=error)
            time.sleep(pause_s * (1 + random.random() / 2))
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    def is_waited_for(self, error: RankmillError) -> bool:
        """Return whether the error is an outage of Redis, which costs no retry."""
        return isinstance(error, BrokerUnavailable) and not isinstance(error, CommandRejected)

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

        def send() -> Exception:
            try:
                retry: Exception = self.retry(exc=error, countdown=pause_s, throw=False, **shown)
            except Reject as refused:  # Celery's answer to a message that cannot be sent
                raise unavailable(refused.reason) from None
            return retry

        sent: Exception = self._run_with_redis(send)
        return sent
