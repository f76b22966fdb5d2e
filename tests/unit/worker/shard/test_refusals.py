"""Which rows cannot be scored: blank texts are found in any script and at any place of a table."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankmill.contract.plan import REFUSAL_COLUMN, Columns
from worker.shard.rejects import refusals

COLUMNS = Columns(query="query", document="document", query_id=None, doc_id=None, kept={})
# As Unicode has it: white space of one, two and three bytes, and what only begins like it.
BLANK = [" ", "\t\n", "\x1f", "\x85", "\xa0", "\u1680", "\u2028", "\u3000", " \u2003\r"]
FULL = ["a", " a", "~", "\x7f", "\x00", "\u3000x", "é", "日本", "\u200b", "x \u3000"]

texts = st.lists(st.one_of(st.none(), st.just(""), st.sampled_from([*BLANK, *FULL])), min_size=1)


def refused(documents: pa.ChunkedArray) -> dict[int, str]:
    n = len(documents)
    table = pa.table(
        {
            "query": pa.repeat("q", n),
            "document": documents,
            REFUSAL_COLUMN: pa.nulls(n, pa.string()),
        }
    )
    return refusals(table, COLUMNS)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@given(texts=texts, before=st.integers(0, 3))
def test_rows_without_text_are_refused_and_no_others(
    kind: pa.DataType, texts: list[str | None], before: int
) -> None:
    column = pa.array([*["left out"] * before, *texts], kind).slice(before)
    reasons = {None: "document is null", "": "document is empty"}
    reasons |= {text: "document is empty" for text in BLANK}
    wanted = {at: reasons[text] for at, text in enumerate(texts) if text in reasons}
    assert refused(pa.chunked_array([column])) == wanted


def test_a_column_of_nulls_or_of_nothing_is_refused() -> None:
    assert refused(pa.chunked_array([pa.nulls(2, pa.string())])) == dict.fromkeys(
        (0, 1), "document is null"
    )
    assert refused(pa.chunked_array([pa.array(["", ""])])) == dict.fromkeys(
        (0, 1), "document is empty"
    )
