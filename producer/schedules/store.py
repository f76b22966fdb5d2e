"""Definitions and history of schedules in Redis, under keys of our own.

    rankmill:schedules               hash   definition by name, JSON
    rankmill:schedules:seen          hash   time up to which due times have been noted, by name
    rankmill:schedule:NAME:firings   hash   the newest firings by due time, JSON

A Redis that loses all this is given it again by `rankmill schedule apply`; of the history, what is
in the runs' own folders comes back with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import cast

import redis

from producer.schedules.spec import Firing, ScheduleSpec, due_key
from rankmill.contract.base import parse
from rankmill.errors import JobUnknown
from rankmill.ledger.client import broker_errors, connect
from rankmill.settings import Settings

_SPECS = "rankmill:schedules"
_SEEN = "rankmill:schedules:seen"
KEPT_FIRINGS = 1000


class Store:
    """Each method raises BrokerUnavailable when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    @classmethod
    def connect(cls, settings: Settings) -> Store:
        return cls(connect(settings))

    def names(self) -> list[str]:
        with broker_errors():
            return sorted(cast(list[str], self._redis.hkeys(_SPECS)))

    def specs(self) -> list[ScheduleSpec]:
        return [self.read(name) for name in self.names()]

    def read(self, name: str) -> ScheduleSpec:
        """The definition of a schedule.

        Raises:
            JobUnknown: there is none of that name.
        """
        with broker_errors():
            content = cast(str | None, self._redis.hget(_SPECS, name))
        if content is None:
            raise JobUnknown(f"no schedule '{name}'; rankmill schedule list shows those there are")
        return parse(ScheduleSpec, content.encode(), f"schedule {name} in Redis")

    def write(
        self, specs: Iterable[ScheduleSpec], seen: dict[str, datetime], removed: Iterable[str] = ()
    ) -> None:
        """Put definitions and remove others, all at once; `seen` begins the look anew."""
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
        with broker_errors():
            text = cast(str | None, self._redis.hget(_SEEN, name))
        return None if text is None else datetime.fromisoformat(text)

    def set_seen(self, name: str, at: datetime) -> None:
        with broker_errors():
            self._redis.hset(_SEEN, name, at.isoformat())

    def firings(self, name: str) -> list[Firing]:
        """What became of the newest due times, in their order."""
        with broker_errors():
            found = cast(dict[str, str], self._redis.hgetall(_firings(name)))
        where = f"history of {name} in Redis"
        return [parse(Firing, content.encode(), where) for _, content in sorted(found.items())]

    def firing(self, name: str, due: datetime) -> Firing | None:
        with broker_errors():
            content = cast(str | None, self._redis.hget(_firings(name), due_key(due)))
        if content is None:
            return None
        return parse(Firing, content.encode(), f"history of {name} in Redis")

    def note_new(self, firing: Firing) -> bool:
        """Note a due time, once: False where it has been noted before; that stays."""
        key = _firings(firing.schedule)
        with broker_errors():
            return bool(self._redis.hsetnx(key, due_key(firing.due), firing.model_dump_json()))

    def forget_old(self, name: str) -> None:
        """Let the oldest firings go where there are too many."""
        key = _firings(name)
        with broker_errors():
            dues = sorted(cast(list[str], self._redis.hkeys(key)))
            if len(dues) > KEPT_FIRINGS:
                self._redis.hdel(key, *dues[:-KEPT_FIRINGS])

    def note(self, firing: Firing) -> Firing:
        """Put down what became of a due time."""
        with broker_errors():
            self._redis.hset(
                _firings(firing.schedule), due_key(firing.due), firing.model_dump_json()
            )
        return firing


def _firings(name: str) -> str:
    return f"rankmill:schedule:{name}:firings"
