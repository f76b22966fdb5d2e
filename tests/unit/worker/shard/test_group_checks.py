"""No document may come twice in a query, whatever the type of its id and the rows between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.errors import InputError
from tests.support.inputs import read_rejected
from tests.support.shards import job_over, run_all

IDS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["a", "b", "", "ä"]),
    (pa.large_string(), ["a", "b", "", "ä"]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "c", "d"]),
    (pa.binary(2), [b"aa", b"\xff\xff", b"\x00\x00", b"bb"]),
    (pa.int64(), [-(2**63), 2**63 - 1, 0, -1]),
    (pa.uint64(), [0, 2**64 - 1, 2**63, 1]),
    (pa.decimal128(20, 2), [Decimal("1.00"), Decimal("-1.00"), Decimal(0), Decimal(2)]),
    (pa.date32(), [date(2026, 1, day) for day in (1, 2, 3, 4)]),
    (pa.timestamp("ns", "UTC"), [datetime(2026, 1, day) for day in (1, 2, 3, 4)]),
    (pa.duration("s"), [timedelta(seconds=n) for n in range(4)]),
]


def run(ids: pa.Array, query_ids: Sequence[float | None], folder: Path) -> None:
    n = len(ids)
    folder.mkdir(exist_ok=True)
    table = {"query_id": query_ids, "doc_id": ids, "query": ["q"] * n, "document": ["d"] * n}
    pq.write_table(pa.table(table), folder / "in.parquet")
    run_all(job_over(folder / "in.parquet", folder), window_pairs=3)


@pytest.mark.parametrize(("kind", "ids"), IDS, ids=[str(kind) for kind, _ in IDS])
def test_a_document_twice_in_a_query_is_an_error_with_both_rows(
    kind: pa.DataType, ids: list[Any], tmp_path: Path
) -> None:
    other = pa.array(ids, kind)
    again = pa.array([*ids, ids[1]], kind)
    run(pa.concat_arrays([other, other]), [1] * 4 + [2] * 4, tmp_path)  # once in each of two
    with pytest.raises(InputError, match=r"query_id 2 has doc_id .* in rows 5 and 8 counted"):
        run(pa.concat_arrays([other, again]), [1] * 4 + [2] * 5, tmp_path)


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_row_without_a_query_is_not_a_document_of_the_query_before(
    kind: pa.DataType, missing: float | None, tmp_path: Path
) -> None:
    run(pa.array(["a", "b", "a"], kind), [1.0, 1.0, missing], tmp_path)
    assert read_rejected(tmp_path / "out")[0]["row"] == 2


def test_ids_that_are_missing_do_not_equal_one_another(tmp_path: Path) -> None:
    run(pa.array([None, None, "a", None]), [1] * 4, tmp_path)
    with pytest.raises(InputError, match="'a' twice or more, in rows 2 and 4"):
        run(pa.array([None, None, "a", None, "a"]), [1] * 5, tmp_path)
