"""Pause the queues whose work this worker has declined, so that other workers take it.

Otherwise an idle worker that can do nothing would take the same messages again and again, faster
than the others. All of this runs in the main process. A pause begins before Celery takes the next
message, since one loop handles both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from celery.worker.request import Request

from rankmill.errors import Declined
from rankmill.logs import get_logger

log = get_logger(__name__)

_FIRST_S, _LONGEST_S = 1.0, 30.0
# After this time without a decline, pauses begin short again.
_FORGOTTEN_S = 300.0


@dataclass(frozen=True)
class Pause:
    """The last pause of a queue.

    Attributes:
        length_s: twice the length of the pause before it, up to 30 s.
        since: by the monotonic clock.
    """

    reason: str
    length_s: float
    since: float
    is_over: bool = False


class Pauses:
    """The pauses of a worker's queues.

    `pause` and `resume` run in the thread of Celery's loop; any thread may call the others.

    Attributes:
        is_held_back: returns whether no pause may end yet.
        on_decline: called after each new pause has begun.
    """

    def __init__(self) -> None:
        self._consumer: Any = None
        self._pauses: dict[str, Pause] = {}
        self.is_held_back: Callable[[], bool] = lambda: False
        self.on_decline: Callable[[], None] = lambda: None

    def attach(self, sender: Any = None, **_: Any) -> None:
        """Pause queues of this consumer from now on (signal `worker_ready`)."""
        self._consumer = sender
        sender.timer.call_repeatedly(_FIRST_S, self.resume)

    def pause(self, queue: str, reason: str) -> None:
        """Take nothing from a queue for a while, since its work was declined."""
        now, last = time.monotonic(), self._pauses.get(queue)
        if last is None or now - last.since > _FORGOTTEN_S + last.length_s:
            last = Pause("", _FIRST_S / 2, now, is_over=True)
        if not last.is_over or self._consumer is None:
            return
        pause = Pause(reason, min(2 * last.length_s, _LONGEST_S), now)
        self._pauses[queue] = pause
        level = log.debug if reason == last.reason else log.warning
        level("work declined, queue paused", queue=queue, pause_s=pause.length_s, reason=reason)
        self._consumer.cancel_task_queue(queue)
        self.on_decline()

    def resume(self) -> None:
        """Take work again from the queues whose pause has ended."""
        for queue, pause in list(self._pauses.items()):
            ends = pause.since + pause.length_s
            if pause.is_over or time.monotonic() < ends or self.is_held_back():
                continue
            if self._consumer.task_consumer is not None:  # else it waits for Redis
                self._pauses[queue] = Pause(pause.reason, pause.length_s, pause.since, is_over=True)
                self._consumer.add_task_queue(queue)

    def paused(self) -> list[str]:
        """Return the queues that are paused now."""
        return [queue for queue, pause in list(self._pauses.items()) if not pause.is_over]

    def reasons(self) -> list[str]:
        """Return why work was declined lately, each reason once."""
        now = time.monotonic()
        lately = [each for each in list(self._pauses.values()) if now - each.since < _FORGOTTEN_S]
        return list(dict.fromkeys(pause.reason for pause in lately))


@lru_cache(maxsize=1)
def pauses() -> Pauses:
    """Return the pauses of this process, which is a worker's main one."""
    return Pauses()


class PausingRequest(Request):  # type: ignore[misc]  # Celery has no types
    """Celery's request, which pauses its queue if its work was declined."""

    def on_retry(self, exc_info: Any) -> None:
        """Acknowledge a message that was sent again; pause its queue if it was declined."""
        error = exc_info.exception.exc
        if isinstance(error, Declined):
            pauses().pause(self.delivery_info["routing_key"], str(error))
        super().on_retry(exc_info)
