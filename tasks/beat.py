"""Run Celery's beat: it sends only its own entries, and waits while Redis is away or refuses."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any, Self

import kombu.exceptions
import redis
from celery import Celery
from celery.apps.beat import Beat
from celery.beat import SchedulingError, Service
from redbeat.schedulers import RedBeatScheduler, RedBeatSchedulerEntry, get_redis

from rankmill.errors import InputError
from rankmill.ledger.client import connect
from rankmill.ledger.server import check_at_start
from rankmill.logs import get_logger
from rankmill.settings import settings

log = get_logger(__name__)

_PAUSE_S = 2.0
_NEVER = -1  # Redis's answer for a key that does not expire
_OLDEST = timedelta(days=366)
_CLOCKS_DIFFER = timedelta(minutes=1)
_OUTAGES = (redis.RedisError, kombu.exceptions.KombuError, SchedulingError, OSError)


class OwnEntry(RedBeatSchedulerEntry):
    """An entry of the configuration; only the time of its last run comes from Redis."""

    @classmethod
    def from_key(cls, key: str, app: Celery) -> Self:
        """Return the entry of a key.

        Raises:
            KeyError: the configuration has no such entry.
        """
        name = key.removeprefix(app.redbeat_conf.key_prefix)
        entry = cls(**app.redbeat_conf.schedule[name], name=name, app=app)
        entry.last_run_at = _last_run(get_redis(app).hget(key, "meta"), app.now())
        return entry


class OwnScheduler(RedBeatScheduler):
    """RedBeat's scheduler of the configuration's entries, whatever else is in Redis."""

    Entry = OwnEntry

    def setup_schedule(self) -> None:
        """Write the entries to Redis."""
        self._remove_unusable()
        super().setup_schedule()

    @property
    def schedule(self) -> dict[str, OwnEntry]:
        """The entries by name."""
        self._remove_unusable()
        keys = self._entry_keys()
        return {name: self.Entry.from_key(key, app=self.app) for name, key in keys.items()}

    def _remove_unusable(self) -> None:
        """Remove keys of a wrong type, and a lock that would never expire."""
        conf = self.app.redbeat_conf
        with get_redis(self.app).pipeline(transaction=False) as pipe:
            pipe.zscore(conf.schedule_key, "")
            pipe.smembers(conf.statics_key)
            pipe.get(conf.lock_key)
            for key in self._entry_keys().values():
                pipe.hget(key, "meta")
            pipe.pttl(conf.lock_key)
            *answers, lock_ms = pipe.execute(raise_on_error=False)
        keys = [conf.schedule_key, conf.statics_key, conf.lock_key, *self._entry_keys().values()]
        unusable = {
            key for key, answer in zip(keys, answers, strict=True) if "WRONGTYPE" in str(answer)
        }
        for key in unusable | ({conf.lock_key} if lock_ms == _NEVER else set()):
            log.warning("unusable key of beat removed from Redis", key=key)
            get_redis(self.app).delete(key)

    def _entry_keys(self) -> dict[str, str]:
        names = self.app.redbeat_conf.schedule
        return {name: self.Entry.generate_key(self.app, name) for name in names}


def _last_run(meta: Any, now: datetime) -> datetime | None:
    """Return the time of the last run; None, which is due at once, if it is not plausible."""
    try:
        at: datetime = RedBeatSchedulerEntry.decode_meta(meta)["last_run_at"]
        return at if now - _OLDEST < at < now + _CLOCKS_DIFFER else None
    except Exception:  # Redis may hold anything, and decoding it may raise any error
        return None


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
