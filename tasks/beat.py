"""Celery's beat, which waits for a Redis that is away or refuses commands, and goes on."""

from __future__ import annotations

import time

import kombu.exceptions
import redis
from celery.apps.beat import Beat
from celery.beat import SchedulingError, Service

from rankmill.errors import InputError
from rankmill.ledger.client import connect
from rankmill.ledger.server import check_at_start
from rankmill.logs import get_logger
from rankmill.settings import settings

log = get_logger(__name__)

_PAUSE_S = 2.0
_OUTAGES = (redis.RedisError, kombu.exceptions.KombuError, SchedulingError, OSError)


class WaitingService(Service):
    """Celery's loop over the schedule, begun again with a new scheduler after an outage.

    A due time is noted in Redis before its task is sent. So a beat that begins again, or another
    one that has taken the lock meanwhile, sends no task a second time.
    """

    def start(self, embedded_process: bool = False) -> None:
        """Run until a signal ends the process; exit at once if this Redis cannot be used."""
        try:
            check_at_start(connect(settings()))
        except InputError as error:
            log.error("this Redis cannot be used", error=str(error))
            raise SystemExit(error.exit_code) from None
        while not self._is_shutdown.is_set():
            try:
                # RedBeat's own client would lock by scripts, which beat's user may not run.
                self.app.redbeat_redis = connect(settings())
                _ = self.scheduler  # made here, it writes the schedule to Redis
                super().start(embedded_process)
            except Exception as error:
                if not self._is_outage(error):
                    raise
                log.warning("beat waits for Redis", error=error)
                self._drop_scheduler()
                time.sleep(_PAUSE_S)

    def sync(self) -> None:
        """Release the lock; it expires by itself if Redis refuses that."""
        try:
            if "scheduler" in self.__dict__:
                super().sync()
        except _OUTAGES as error:
            log.warning("beat cannot release its lock", error=error)
        self._is_stopped.set()

    def _is_outage(self, error: Exception) -> bool:
        # If Redis fails while RedBeat takes the lock, Celery goes on without it.
        has_no_lock = getattr(self.__dict__.get("scheduler"), "lock", True) is None
        return isinstance(error, _OUTAGES) or has_no_lock

    def _drop_scheduler(self) -> None:
        """Drop the scheduler, so that the next one connects again, perhaps to another server."""
        self.__dict__.pop("scheduler", None)


class WaitingBeat(Beat):
    """Celery's beat with the service above."""

    Service = WaitingService
