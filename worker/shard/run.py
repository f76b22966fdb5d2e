"""Run a shard: score its rows, publish its part, and commit both with the shard report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from rankmill import storage
from rankmill.contract.histogram import length_histogram, score_histogram
from rankmill.contract.plan import ShardSpec
from rankmill.contract.results import Agreement, ShardReport
from rankmill.contract.reuse import known_type
from rankmill.errors import JobFailed
from rankmill.output.output import Job
from worker.device_errors import device_errors
from worker.engine.device.faults import DeviceFullError
from worker.models import release
from worker.shard.part import activate, write_part
from worker.shard.reader import owned_rows
from worker.shard.rejects import write_rejected
from worker.shard.reordering import RankedRows, summarize
from worker.shard.reuse import write_scores
from worker.shard.score import Scored, ShardWork, Window, score_rows

# A hundredth of the job, in these bounds, is also scored in fp32 to see what a reduced
# precision does to its ranks; more would cost time that the reduced precision was to save.
_MIN_CHECKED_PAIRS, _MAX_CHECKED_PAIRS = 20, 512

# A part, and the other files of its shard.
_N_PUBLISHED_AT_ONCE = 2

_Made = TypeVar("_Made")


def run_shard(job: Job, shard: ShardSpec, work: ShardWork) -> ShardReport:
    """Score a shard and publish its part, then its report; raises as `run_shards`."""
    [report] = run_shards(job, [shard], work)
    return report


def run_shards(
    job: Job, shards: Iterable[ShardSpec], work: ShardWork
) -> Generator[ShardReport, None, None]:
    """Run shards in their order, and yield the report of each once it is committed.

    A shard is published while the next one is scored. After an error no other shard begins.

    Raises:
        InputError: the input changed, is damaged, is not clustered by query or names a document
            twice.
        DeviceFault, DeviceFull, MemoryShort: no report was published, and no row is to blame.
        JobFailed: the model's files were written to.
        ClaimLost: by `work.guard`; nothing was published after that.
    """
    before: Future[ShardReport] | None = None
    with ThreadPoolExecutor(_N_PUBLISHED_AT_ONCE, "publishing") as publisher:
        for shard in shards:
            with ExitStack() as stack:
                run = _Run(job, shard, work)
                with device_errors():
                    run.score(stack)
                if before is not None:  # the rows of two shards are held at most
                    yield before.result()
                work.guard()
                part = _submit(publisher, run.write_part)
                rejected = _submit(publisher, run.write_others)
                files: list[Future[Any]] = [part, rejected]
                stack.callback(wait, files)
                # While they are written, since fp32 may take longer than the shard.
                with device_errors():
                    agreement = run.agreement()
                before = _submit(publisher, run.commit, part, rejected, agreement, stack.pop_all())
        if before is not None:
            yield before.result()


def _submit(
    publisher: ThreadPoolExecutor, call: Callable[..., _Made], *given: object
) -> Future[_Made]:
    """Submit a call that logs with the fields of the caller."""
    return publisher.submit(copy_context().run, call, *given)


class _Run:
    """A shard on its way from its rows to its report."""

    def __init__(self, job: Job, shard: ShardSpec, work: ShardWork) -> None:
        self._job, self._shard, self._work = job, shard, work
        self._started = time.monotonic()

    def score(self, stack: ExitStack) -> None:
        """Score all rows; the files that hold them go when `stack` is closed.

        Raises:
            JobFailed: the weights changed in memory meanwhile.
        """
        busy_before_s = self._work.model.scorer.stats.device_busy_s
        self._scored = score_rows(self._job, self._shard, self._work, stack)
        self._device_busy_s = self._work.model.scorer.stats.device_busy_s - busy_before_s
        # Weights are mapped from their files: writing to a file changes them.
        if self._work.model.scorer.have_weights_changed():
            model_id = self._work.model.scoring.model_id
            release()
            raise JobFailed(
                f"the files of the model {model_id} were written to while it was in use; replace "
                "files by renaming new ones, and run the job again with --overwrite"
            )

    def write_part(self) -> tuple[storage.Published, int]:
        """Publish the part; return it and its number of rows."""
        activation = self._work.model.scoring.activation
        return write_part(self._job, self._shard.shard_index, self._scored, activation)

    def write_others(self) -> storage.Published | None:
        """Publish all files of the shard but its part and its report, and return its rejects."""
        scored, index = self._scored, self._shard.shard_index
        rejected = write_rejected(self._job, index, scored.rejected)
        scored.checks.write_digests(index)
        if scored.hashed is not None:
            write_scores(self._job, index, scored.hashed)
        return rejected

    def agreement(self) -> tuple[Agreement | None, str | None]:
        """Compare how the precision ranks the job's first pairs with fp32.

        Returns:
            The agreement, or else why it could not be measured. Both are None for fp32 itself, for
            any shard but the first, and for one that is run with care.
        """
        job, work = self._job, self._work
        precision = work.model.scoring.precision
        if self._shard.shard_index != 0 or precision == "fp32" or work.suspects is not None:
            return None, None
        columns = job.plan.columns
        n_pairs = min(max(job.plan.n_rows // 100, _MIN_CHECKED_PAIRS), _MAX_CHECKED_PAIRS)
        first = next(owned_rows(job, self._shard, columns.texts, n_pairs), None)
        if first is None:
            return None, None
        scored = self._scored
        unknown = np.zeros(first.table.num_rows, known_type(has_passages=job.spec.has_passages))
        unfit = [at for at in range(len(first.groups)) if first.first_row + at in scored.rejected]
        pairs = Window.of(first, unfit, unknown).pairs(columns)
        logits = np.concatenate(scored.logits)[np.concatenate(scored.rows) < first.stop_row]
        try:
            measured = work.model.scorer.agreement(pairs, logits)
        except DeviceFullError as error:
            return None, f"not measured: {error}"
        return Agreement(precision=precision, **asdict(measured)), None

    def commit(
        self,
        part: Future[tuple[storage.Published, int]],
        rejected: Future[storage.Published | None],
        agreement: tuple[Agreement | None, str | None],
        stack: ExitStack,
    ) -> ShardReport:
        """Publish the report once all other files are there, and free what holds the rows."""
        with stack:
            report = self._report(*part.result(), rejected.result(), *agreement)
        self._work.guard()
        return self._job.output.commit(report)

    def _report(
        self,
        part: storage.Published,
        n_written: int,
        rejected: storage.Published | None,
        agreement: Agreement | None,
        no_agreement: str | None,
    ) -> ShardReport:
        scored, work, scoring = self._scored, self._work, self._work.model.scoring
        ranked = _ranked(scored, scoring.activation)
        return ShardReport(
            job_id=self._job.job_id,
            shard_index=self._shard.shard_index,
            n_rows=scored.n_rows,
            n_scored=scored.n_rows - len(scored.rejected),
            n_rejected=len(scored.rejected),
            n_written=n_written,
            n_query_groups=scored.n_groups,
            n_tokens=scored.n_tokens,
            n_truncated=scored.n_truncated,
            rejects_by_reason=dict(sorted(Counter(scored.rejected.values()).items())),
            part_bytes=part.n_bytes,
            part_sha256=part.sha256,
            rejected_sha256=rejected.sha256 if rejected else None,
            wall_s=time.monotonic() - self._started,
            device_busy_s=self._device_busy_s,
            worker=work.worker,
            scoring=scoring,
            agreement=agreement,
            no_agreement=no_agreement,
            finished_at=datetime.now(UTC),
            n_duplicates=scored.n_duplicates,
            n_deaths=work.n_deaths,
            n_retries=work.n_retries,
            scores=score_histogram(ranked.scores, scoring.activation),
            lengths=length_histogram(ranked.lengths, scoring.max_length),
            logits=score_histogram(ranked.logits, "none"),
            reordering=summarize(ranked),
            n_reused=scored.n_reused,
            no_reuse=scored.no_reuse,
        )


def _ranked(scored: Scored, activation: str) -> RankedRows:
    """Return the scored rows of a shard as arrays, which may be empty."""

    def joined(pieces: list[np.ndarray], kind: type[np.generic]) -> np.ndarray:
        return np.concatenate([np.empty(0, kind), *pieces], dtype=kind)

    logits = joined(scored.logits, np.float32)
    return RankedRows(
        groups=joined(scored.groups, np.int64),
        rows=joined(scored.rows, np.int64),
        logits=logits,
        scores=activate(logits, activation),
        lengths=joined(scored.lengths, np.int64),
        truncated=joined(scored.truncated, np.bool_),
        first_scores=joined(scored.first_scores, np.float64) if scored.first_scores else None,
    )
