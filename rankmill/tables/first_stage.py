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
    kind = schema.field(SCORE).type
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)
    return "score" if is_number else "rows"


def first_scores(table: pa.Table) -> np.ndarray:
    """Return the column `score` as float64 (n,), with NaN for null."""
    return np.asarray(pc.cast(table[SCORE], pa.float64(), safe=False).to_numpy())
