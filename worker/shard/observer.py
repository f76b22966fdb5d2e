"""Report a running shard to its claim, the health check and the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rankmill.contract.plan import ShardSpec
from rankmill.contract.results import ShardReport
from rankmill.errors import ClaimLost, RankmillError
from rankmill.ledger.claims import Claim
from worker.liveness.heartbeat import task_heartbeat
from worker.metrics.counters import meters
from worker.models import LoadedModel


@contextmanager
def watched(shard: ShardSpec) -> Iterator[None]:
    """Report that a shard is being run, and count how it ends."""
    try:
        with task_heartbeat().at_work(f"shard {shard.shard_index} of job {shard.job_id}"):
            yield
    except ClaimLost:
        meters().shard("lost")
        raise
    except BaseException as error:
        if not isinstance(error, RankmillError) or error.blame == "job":
            meters().shard("failed")  # else it is declined
        raise
    meters().shard("scored")


class Watch:
    """Reports the progress of a shard to its claim, its heartbeat and the metrics."""

    def __init__(self, claim: Claim, model: LoadedModel) -> None:
        self._claim = claim
        self._scorer = model.scorer
        self._device = model.scorer.info.device
        self._counted = model.scorer.stats
        meters().model(model.scoring)

    def progress(self, n_pairs: int, n_tokens: int) -> None:
        """Report the pairs and tokens of the shard scored so far."""
        task_heartbeat().beat()
        self._claim.progress(n_pairs, n_tokens)
        self._count()

    def reported(self, report: ShardReport) -> ShardReport:
        """Count a finished shard and return its report."""
        self._count()
        meters().report(report)
        return report

    def _count(self) -> None:
        stats = self._scorer.stats
        meters().scored(self._counted, stats)
        meters().memory(self._device)
        self._counted = stats
