"""Compare two outputs out of core, in memory that does not grow with their size."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from producer.quality.drift.changed import most_changed
from producer.quality.drift.gate import Gate, check, check_answerable, places
from producer.quality.drift.joined import Joined, SideCounts
from producer.quality.drift.ranked import Ranked, common_keys, open_ranked
from producer.quality.drift.scores import quantiles, score_shift
from producer.quality.evaluate import compare_ndcg
from producer.quality.qrels import Qrels
from producer.tables.database import Database
from producer.tables.workspace import Workspace
from rankmill.contract.drift import RBO_DEPTH, RBO_P, Drift, Keys, RankBiasedOverlap, Side
from rankmill.errors import InputError, StorageRefused
from rankmill.output.output import Output
from rankmill.settings import settings

_N_PLACES = 5  # shown of a changed query
_QUANTILES = (0.0, 0.05, 0.25, 0.5)


def diff(
    old: Output,
    new: Output,
    *,
    ks: Iterable[int] = (10,),
    gates: Sequence[Gate] = (),
    qrels: Qrels | None = None,
    n_queries: int = 5,
) -> Drift:
    """Measure what changed from one finished job's output to another's, and check the gates.

    Args:
        old: the output to compare with.
        new: the output to compare.
        ks: places for churn and nDCG, each at least 1; the gates' places are added.
        gates: bounds that the difference must keep.
        qrels: judgments, to measure nDCG.
        n_queries: how many of the most changed queries to show.

    Raises:
        InputError: a job has not succeeded, the outputs have no common ids or texts, ids differ in
            type, a part is gone, or judgments name none of the queries.
        JobUnknown: no job was submitted there.
        StorageRefused: the scratch folder cannot be written, for example because its disk is full.
    """
    check_answerable(gates, has_qrels=qrels is not None)
    depths = sorted({*ks, *places(gates)})
    if min(depths, default=0) < 1:
        raise InputError(f"churn at {depths[0] if depths else 'no place'}: a place is at least 1")
    if n_queries < 0:
        raise InputError(f"most changed queries to show: {n_queries}; give 0 or more")
    sides = open_ranked(old), open_ranked(new)
    ndcg = () if qrels is None else compare_ndcg(old, new, qrels, depths)
    drift = _compare(*sides, depths, n_queries).model_copy(update={"ndcg": ndcg})
    return drift.model_copy(update={"gate": check(gates, drift)}) if gates else drift


def _compare(old: Ranked, new: Ranked, ks: Sequence[int], n_queries: int) -> Drift:
    keys = common_keys(old, new)
    scratch_in = settings().scratch
    try:
        with (
            tempfile.TemporaryDirectory(prefix="rankmill-", dir=scratch_in) as scratch,
            Database(Path(scratch), settings().prepare_memory, "compare the outputs") as database,
        ):
            workspace = Workspace(Path(scratch), database, lambda *_: None)
            joined = Joined(database, old, new, keys, ks)
            pairs, queries = joined.pairs(), joined.queries()
            return Drift(
                old=_side(old, joined.old),
                new=_side(new, joined.new),
                keys=Keys(query=keys[0].kind, document=keys[1].kind),
                queries=queries,
                pairs=pairs,
                scores=score_shift(workspace, joined.scores(), pairs.n_common),
                churn=joined.churn(),
                rbo=_rbo(workspace, joined.overlaps(), queries.n_common),
                ndcg=(),
                most_changed=most_changed(joined, old, new, n_queries, _N_PLACES),
            )
    except OSError as error:
        reason = error.strerror or error
        where = scratch_in or tempfile.gettempdir()
        raise StorageRefused(f"cannot compare the outputs in {where}: {reason}") from error


def _side(side: Ranked, counts: SideCounts) -> Side:
    record = side.job.record
    return Side(
        job_id=record.job_id,
        output_uri=side.output.uri,
        submitted_at=record.submitted_at,
        model_id=record.spec.model_id,
        model_revision=record.spec.model_revision,
        top_k=record.spec.top_k,
        n_rows=counts.n_rows,
        n_pairs=counts.n_pairs,
        n_queries=counts.n_queries,
    )


def _rbo(
    workspace: Workspace, tables: Iterable[pa.Table], n_queries: int
) -> RankBiasedOverlap | None:
    if n_queries == 0:
        return None
    values = workspace.array("rbo", np.float64, n_queries)
    at = 0
    for table in tables:
        values[at : at + table.num_rows] = table["rbo"].to_numpy()
        at += table.num_rows
    values.sort()
    n_equal = n_queries - int(np.searchsorted(values, 1.0))
    return RankBiasedOverlap(
        p=RBO_P,
        depth=RBO_DEPTH,
        mean=float(values.mean()),
        n_equal=n_equal,
        quantiles=quantiles(values, _QUANTILES),
    )
