"""Choose the measures of a ranking, none deeper than the rows that the result kept of a query.

Recall at 100 of the best 10 rows would only look worse than that of the first stage's 100.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from rankmill.errors import InputError

if TYPE_CHECKING:
    from ir_measures import Measure

CUTOFF = 10  # of nDCG and MRR
_MAX_CUTOFF = 2**31 - 1


def measures(
    ndcg_at: Collection[int], rr_at: Collection[int] = (), recall_at: Collection[int] = ()
) -> list[Measure]:
    """Return nDCG, reciprocal rank and recall at these cutoffs.

    Raises:
        InputError: a cutoff is none, or ir-measures is not installed.
    """
    for cutoff in (*ndcg_at, *rr_at, *recall_at):
        if not 1 <= cutoff <= _MAX_CUTOFF:
            raise InputError(f"measure at {cutoff}: a cutoff is at least 1, at most {_MAX_CUTOFF}")
    try:
        from ir_measures import RR, R, nDCG  # an extra, and nothing else needs it
    except ImportError as error:
        raise InputError("evaluation needs ir-measures: pip install 'rankmill[eval]'") from error
    cutoffs = ((nDCG, ndcg_at), (RR, rr_at), (R, recall_at))
    return [measure @ cutoff for measure, those in cutoffs for cutoff in those]


def measures_within(
    wanted: Sequence[Measure], kept: int | None
) -> tuple[list[Measure], tuple[str, ...]]:
    """Return measures that are no deeper than a result, and the names of those that were.

    A measure that is too deep is cut at `kept` instead.

    Args:
        wanted: measures with a cutoff.
        kept: rows of each query that the result has at most; None if it has all.
    """
    if kept is None:
        return list(wanted), ()
    taken = dict.fromkeys(each if each["cutoff"] <= kept else each @ kept for each in wanted)
    return list(taken), tuple(str(each) for each in wanted if each not in taken)


def cut_at(before: pa.Table, top_k: int | None) -> int | None:
    """Return `top_k` if a query had more rows, else None: then the result has them all.

    Args:
        before: the rows that were scored, with the column `query`.
        top_k: rows of each query that the result has at most.
    """
    if top_k is None or not before.num_rows:
        return None
    most = pc.max(pc.value_counts(before["query"]).field("counts")).as_py()
    return top_k if most > top_k else None
