"""A shard that is being run, as its claim, the health check and the meters see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rankmill.contract.job import ShardSpec
from rankmill.contract.results import ShardReport
from rankmill.errors import ClaimLost
from rankmill.ledger.claim import Claim
from worker.liveness.heartbeat import task_pulse
from worker.metrics.counters import meters
from worker.models import LoadedModel


@contextmanager
def watched(shard: ShardSpec) -> Iterator[None]:
    """Have it known that a shard is being run, and how that ends."""
    try:
        with task_pulse().at_work(f"shard {shard.shard_index} of job {shard.job_id}"):
            yield
    except ClaimLost:
        meters().shard("lost")
        raise
    except BaseException:
        meters().shard("failed")
        raise
    meters().shard("scored")


class Watch:
    """Tells all of them of progress."""

    def __init__(self, claim: Claim, model: LoadedModel) -> None:
        self._claim = claim
        self._scorer = model.scorer
        self._device = model.scorer.info.device
        self._counted = model.scorer.stats
        meters().model(model.scoring)

    def progress(self, n_pairs: int, n_tokens: int) -> None:
        """Some pairs and tokens of the shard have been scored so far."""
        task_pulse().beat()
        self._claim.progress(n_pairs, n_tokens)
        self._count()

    def reported(self, report: ShardReport) -> ShardReport:
        """The shard is done."""
        self._count()
        meters().report(report)
        return report

    def _count(self) -> None:
        stats = self._scorer.stats
        meters().scored(self._counted, stats)
        meters().memory(self._device)
        self._counted = stats
