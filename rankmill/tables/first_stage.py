"""Find the order that the first stage gave an input's rows."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCORE = "score"


def order_before(schema: pa.Schema) -> Literal["score", "rows"]:
    """Return what orders the input: its numeric column `score` if there is one, else its rows."""
    if SCORE not in schema.names:
        return "rows"
    return "score" if is_number(schema.field(SCORE).type) else "rows"


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds numbers."""
    tests = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def first_column(schema: pa.Schema, named: str | None = None) -> str | None:
    """Return the column with the first stage's scores: the named one, or as `order_before` says."""
    return named or (SCORE if order_before(schema) == "score" else None)


def first_scores(table: pa.Table, column: str = SCORE) -> np.ndarray:
    """Return the column of the first stage as float64 (n,), with NaN for null."""
    return np.asarray(pc.cast(table[column], pa.float64(), safe=False).to_numpy())
