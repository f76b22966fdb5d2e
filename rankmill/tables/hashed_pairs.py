"""Hash the pairs of a table by the roles of its columns."""

from __future__ import annotations

import pyarrow as pa

from rankmill.contract.plan import Columns
from rankmill.tables.pair_hash import pair_hashes
from rankmill.tables.titles import scored_documents, title_lengths


def hashed_pairs(
    table: pa.Table, columns: Columns, *, has_passages: bool
) -> pa.FixedSizeBinaryArray:
    """Return the hash of each pair, by the texts that the model gets.

    Passages repeat a document's title, so that the place where it ends decides their scores, too.
    """
    prompts = None if columns.prompt is None else table[columns.prompt]
    titles = title_lengths(table, columns) if has_passages else None
    return pair_hashes(table[columns.query], scored_documents(table, columns), prompts, titles)
