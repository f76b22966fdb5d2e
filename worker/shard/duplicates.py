"""Documents that a query names twice, which its ranks could not tell apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.shown import clipped
from rankmill.tables.ids import named
from worker.arrow_text import joined
from worker.shard.ownership import OwnedRows

_SHOWN_CHARS = 80


class DocumentIds:
    """The document ids of a shard, where the job asks for them to be distinct."""

    def __init__(self, job: Job) -> None:
        columns = job.plan.columns
        self._wanted = job.spec.duplicates == "fail" and columns.query_id is not None
        self._column = columns.doc_id if self._wanted else None
        self._query = columns.group_key
        self._last_group = -1
        self._queries: list[pa.Array] = []  # of each group, in their order
        self._doc_ids: list[pa.Array] = []
        self._groups: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def add(self, rows: OwnedRows) -> None:
        if self._column is None:
            return
        ids = joined(rows.table[self._column])
        self._doc_ids.append(ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids)
        begins = np.flatnonzero(np.diff(rows.groups, prepend=self._last_group))
        self._last_group = int(rows.groups[-1])
        self._queries += rows.table[self._query].take(pa.array(begins)).chunks
        self._groups.append(rows.groups)
        self._rows.append(rows.first_row + np.arange(len(rows.groups)))

    def check(self) -> None:
        """Raise InputError naming the first document that comes again, its query and two rows."""
        if not self._doc_ids:
            return
        doc_ids = pa.chunked_array(self._doc_ids)
        numbers = {"group": np.concatenate(self._groups), "row": np.concatenate(self._rows)}
        table = pa.table({**numbers, "doc_id": doc_ids})
        if doc_ids.null_count:
            table = table.filter(pc.is_valid(doc_ids))
        counts = table.group_by(["group", "doc_id"], use_threads=False)
        found = counts.aggregate([([], "count_all"), ("row", "min"), ("row", "max")])
        twice = found.filter(pc.field("count_all") > 1)
        if twice.num_rows:
            query = named(pa.chunked_array(self._queries), twice["group"][0].as_py())
            raise InputError(
                f"{self._query} {clipped(query, _SHOWN_CHARS)} has {self._column} "
                f"{clipped(named(twice['doc_id'], 0), _SHOWN_CHARS)} twice or more, in rows "
                f"{twice['row_min'][0]} and {twice['row_max'][0]} counted from 0; "
                "--duplicates keep ranks each of them"
            )
