"""Keep definitions and history of schedules in Redis.

    rankmill:schedules               hash   definition by name, JSON
    rankmill:schedules:seen          hash   time up to which due times are noted, by name
    rankmill:schedule:NAME:firings   hash   the newest firings by due time, JSON

If Redis loses this, `rankmill schedule apply` restores the definitions, and the history as far as
the runs' folders hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import cast

import redis

from producer.schedules.spec import Firing, ScheduleSpec, due_key
from rankmill.contract.base import parse
from rankmill.errors import InputError, JobUnknown
from rankmill.ledger.client import broker_errors, connect
from rankmill.logs import get_logger
from rankmill.settings import Settings

log = get_logger(__name__)

_SPECS = "rankmill:schedules"
_SEEN = "rankmill:schedules:seen"
KEPT_FIRINGS = 1000


class Store:
    """Schedules in Redis; every method raises BrokerUnavailable if Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    @classmethod
    def connect(cls, settings: Settings) -> Store:
        """Connect to the Redis of the settings."""
        return cls(connect(settings))

    def names(self) -> list[str]:
        """Return the names of all schedules, sorted."""
        with broker_errors():
            return sorted(cast(list[str], self._redis.hkeys(_SPECS)))

    def specs(self) -> list[ScheduleSpec]:
        """Return all definitions, sorted by name; log a line for one that is broken."""
        found = []
        for name in self.names():
            try:
                found.append(self.read(name))
            except InputError as error:
                log.warning("schedule is broken", schedule=name, error=str(error))
        return found

    def read(self, name: str) -> ScheduleSpec:
        """Return the definition of a schedule.

        Raises:
            JobUnknown: no schedule has that name.
        """
        with broker_errors():
            content = cast(str | None, self._redis.hget(_SPECS, name))
        if content is None:
            raise JobUnknown(f"no schedule '{name}'; rankmill schedule list shows those there are")
        return parse(ScheduleSpec, content.encode(), f"schedule {name} in Redis")

    def write(
        self, specs: Iterable[ScheduleSpec], seen: dict[str, datetime], removed: Iterable[str] = ()
    ) -> None:
        """Write and remove definitions in one transaction.

        Args:
            specs: definitions to write.
            seen: for each name, the time from which due times are noted.
            removed: names to forget, with their history.
        """
        with broker_errors(), self._redis.pipeline(transaction=True) as pipe:
            for spec in specs:
                pipe.hset(_SPECS, spec.name, spec.model_dump_json())
            for name, at in seen.items():
                pipe.hset(_SEEN, name, at.isoformat())
            for name in removed:
                pipe.hdel(_SPECS, name)
                pipe.hdel(_SEEN, name)
                pipe.delete(_firings(name))
            pipe.execute()

    def seen(self, name: str) -> datetime | None:
        """Return the time up to which due times are noted; None if it is missing or broken."""
        with broker_errors():
            text = cast(str | None, self._redis.hget(_SEEN, name))
        try:
            at = None if text is None else datetime.fromisoformat(text)
        except ValueError:
            at = None
        return at if at is not None and at.tzinfo is not None else None

    def set_seen(self, name: str, at: datetime) -> None:
        """Set the time up to which due times are noted."""
        with broker_errors():
            self._redis.hset(_SEEN, name, at.isoformat())

    def firings(self, name: str) -> list[Firing]:
        """Return the newest firings in order of due time, without broken ones."""
        with broker_errors():
            found = cast(dict[str, str], self._redis.hgetall(_firings(name)))
        read = [_parsed(name, content) for _, content in sorted(found.items())]
        return [firing for firing in read if firing is not None]

    def firing(self, name: str, due: datetime) -> Firing | None:
        """Return the firing of a due time; None if it is not noted, or broken."""
        with broker_errors():
            content = cast(str | None, self._redis.hget(_firings(name), due_key(due)))
        return None if content is None else _parsed(name, content)

    def note_new(self, firing: Firing) -> bool:
        """Note a due time once; return False and change nothing if it is noted already."""
        key = _firings(firing.schedule)
        with broker_errors():
            return bool(self._redis.hsetnx(key, due_key(firing.due), firing.model_dump_json()))

    def forget_old(self, name: str) -> None:
        """Delete the oldest firings beyond KEPT_FIRINGS."""
        key = _firings(name)
        with broker_errors():
            dues = sorted(cast(list[str], self._redis.hkeys(key)))
            if len(dues) > KEPT_FIRINGS:
                self._redis.hdel(key, *dues[:-KEPT_FIRINGS])

    def note(self, firing: Firing) -> Firing:
        """Write a firing and return it."""
        with broker_errors():
            self._redis.hset(
                _firings(firing.schedule), due_key(firing.due), firing.model_dump_json()
            )
        return firing


def _firings(name: str) -> str:
    return f"rankmill:schedule:{name}:firings"


def _parsed(name: str, content: str) -> Firing | None:
    """Return a firing; log a line and return None if it is broken."""
    try:
        return parse(Firing, content.encode(), f"history of {name} in Redis")
    except InputError as error:
        log.warning("firing is broken", schedule=name, error=str(error))
        return None
