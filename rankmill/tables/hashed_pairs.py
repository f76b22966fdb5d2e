"""Hash the pairs of a table by the roles of its columns."""

from __future__ import annotations

import pyarrow as pa

from rankmill.contract.plan import Columns
from rankmill.tables.pair_hash import pair_hashes
from rankmill.tables.titles import scored_documents


def hashed_pairs(table: pa.Table, columns: Columns) -> pa.FixedSizeBinaryArray:
    """Return the hash of each pair, by the texts that the model gets."""
    prompts = None if columns.prompt is None else table[columns.prompt]
    return pair_hashes(table[columns.query], scored_documents(table, columns), prompts)
