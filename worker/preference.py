"""Prefer the shards of the loaded model for a bounded time, so that models rarely change.

A shard of another model is put behind the shards that wait in its queue. The lower priority's turn
is shorter in the ratio of the priorities, so that jobs still share the workers by priority.
"""

from __future__ import annotations

import time
from functools import lru_cache

from rankmill.broker import score_queue, task_id_of, work_of
from rankmill.contract.job import JobSpec
from rankmill.ledger.jobs import Ledger, ledger
from rankmill.logs import get_logger
from rankmill.settings import settings
from worker import models

log = get_logger(__name__)

# A shard of the loaded model must be among the next of the queue, and as many others are put behind
# it at most. So a search costs little, and ends.
_NEXT = 32

_MOST_JOBS = 100


class Preference:
    """The turn of the model that this process has loaded."""

    def __init__(self, ledger: Ledger, turn_s: float) -> None:
        self._ledger = ledger
        self._turn_s = turn_s
        self._weights: object = None
        self._jobs: dict[str, int] = {}  # of the loaded model, with their priority
        self._put_behind: dict[str, float] = {}  # other jobs, since when in this turn
        self._n_in_a_row = 0

    def loaded(self, job_id: str, spec: JobSpec) -> None:
        """Note that a job's model is loaded; its turn begins if another one was."""
        if self._weights != (weights := models.weights_of(spec)):
            self._weights = weights
            self._jobs.clear()
            self._put_behind.clear()
        self._n_in_a_row = 0
        self._jobs[job_id] = spec.priority
        if len(self._jobs) > _MOST_JOBS:
            del self._jobs[next(iter(self._jobs))]

    def is_for_later(self, job_id: str, spec: JobSpec, shard_index: int) -> bool:
        """Return whether to put a shard behind others, since its model is not loaded.

        It costs Redis nothing for a shard of the loaded model.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        weights = models.held_weights()
        if weights is None or weights != self._weights or weights == models.weights_of(spec):
            return False
        if self._n_in_a_row >= _NEXT:
            return False
        waiting = self._ledger.next_messages(score_queue(spec.model_id), _NEXT)
        job_ids = {work_of(task_id_of(message)).get("job_id") for message in waiting}
        priorities = [priority for job, priority in self._jobs.items() if job in job_ids]
        if not priorities:
            return False
        turn_s = self._turn_s * min(1.0, max(priorities) / spec.priority)
        now = time.monotonic()
        if now - self._put_behind.setdefault(job_id, now) >= turn_s:
            return False
        if self._ledger.idle_s(job_id, shard_index) >= turn_s:
            return False
        self._n_in_a_row += 1
        log.debug("shard put behind those of the loaded model")
        return True


@lru_cache(maxsize=1)
def preference() -> Preference:
    """Return this process's preference."""
    return Preference(ledger(), settings().model_turn_s)
