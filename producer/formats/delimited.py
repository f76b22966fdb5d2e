"""Read text files without column names as rows: runs, and texts as TSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.lines import first_line, first_lines, line_error, read_lines
from producer.formats.rows import Rows, with_status
from rankmill.contract.plan import InputFile

_RUN = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float64())])
_RANKS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("rank", pa.int64())])
_TSV = pa.schema([("id", pa.string()), ("text", pa.string())])
# Of a run's line `query_id Q0 doc_id rank score tag`; the order of the lines replaces the rank.
_TREC_FIELDS, _N_TREC_FIELDS = (0, 2, 4), 6
_N_RANK_FIELDS = 3
_FIRST_RANKS = (0, 1)


def run_rows(files: tuple[InputFile, ...]) -> Rows:
    """Return the rows of runs: ids as strings, and the score, or the rank of MS MARCO's.

    TREC's lines are `query_id Q0 doc_id rank score tag`, MS MARCO's `query_id doc_id rank`.

    Raises:
        InputError: one of the first lines is not a run's.
    """
    first = first_line(files[0].stat).split()
    if len(first) == _N_RANK_FIELDS:
        _check_rank(files[0].uri, first[2])
        expected = "where such a run has 3: query_id doc_id rank"
        return _delimited(files, _RANKS, _run_parser(_RANKS, (0, 1, 2), 3, expected))
    expected = (
        "where a TREC run has 6: query_id Q0 doc_id rank score tag; an MS MARCO run has 3: "
        "query_id doc_id rank"
    )
    return _delimited(files, _RUN, _run_parser(_RUN, _TREC_FIELDS, _N_TREC_FIELDS, expected))


def _check_rank(uri: str, value: str) -> None:
    """Check that the first line of a run with three columns has the first rank.

    Raises:
        InputError: it has not, so that the column may be another, such as a triple's document.
    """
    if value not in map(str, _FIRST_RANKS):
        raise line_error(
            uri,
            0,
            f"has '{value}' as its rank, where the first is 0 or 1; if these are triples of ids, "
            "give --columns query_id,positive,negative --duplicates keep",
        )


def _run_parser(
    schema: pa.Schema, places: tuple[int, int, int], n_fields: int, expected: str
) -> Callable[[pa.Table, str], pa.Table]:
    """Return a function that reads lines with ids and a number at these places."""
    number = schema.field(2)

    def parse(lines: pa.Table, uri: str) -> pa.Table:
        line = pc.ascii_trim_whitespace(lines["line"].combine_chunks())
        fields = _split(pc.ascii_split_whitespace(line), n_fields, lines, uri, expected)
        query_ids, doc_ids, numbers = (fields[at] for at in places)
        ids = [query_ids.cast(pa.string()), doc_ids.cast(pa.string())]
        try:
            table = pa.table([*ids, numbers.cast(number.type)], schema)
        except pa.ArrowInvalid:
            for value, row in zip(numbers.to_pylist(), lines["row"].to_pylist(), strict=True):
                try:
                    pa.scalar(value).cast(number.type)
                except pa.ArrowInvalid as error:
                    whole = "number" if number.name == "score" else "whole number"
                    what = f"has the {number.name} '{value}', which is not a {whole}"
                    raise line_error(uri, row, what) from error
            raise
        if number.name == "rank":
            _check_order(table, uri, lines["row"].to_numpy())
        return table

    return parse


def _check_order(ranks: pa.Table, uri: str, rows: np.ndarray) -> None:
    """Check that no rank is below that of the line before, of the same query.

    The order of the lines is the first stage's ranking.

    Raises:
        InputError: one is.
    """
    queries, rank = ranks["query_id"].combine_chunks(), ranks["rank"].to_numpy()
    is_same = pc.equal(queries[1:], queries[:-1]).to_numpy(zero_copy_only=False)
    falling = np.flatnonzero(is_same & (rank[1:] < rank[:-1])) + 1
    if len(falling):
        at = int(falling[0])
        raise line_error(
            uri,
            int(rows[at]),
            f"has rank {rank[at]} after rank {rank[at - 1]} of the same query; sort the run by "
            "query and rank",
        )


def tsv_rows(files: tuple[InputFile, ...]) -> Rows:
    """Return the rows of TSV files `id<TAB>text` without a header, as MS MARCO has them.

    Raises:
        InputError: one of the first lines has not two columns.
    """

    def parse(lines: pa.Table, uri: str) -> pa.Table:
        fields = pc.split_pattern(lines["line"].combine_chunks(), "\t")
        pair = _split(fields, len(_TSV), lines, uri, "where texts have 2: id<TAB>text")
        return pa.table([field.cast(pa.string()) for field in pair], _TSV)

    return _delimited(files, _TSV, parse)


def _delimited(
    files: tuple[InputFile, ...],
    schema: pa.Schema,
    parse: Callable[[pa.Table, str], pa.Table],
) -> Rows:
    """Return the rows that `parse` makes of a table of lines and the file's URI."""

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        for file in files:
            for lines in read_lines(file.stat):
                own = parse(lines, file.uri).select(list(names))
                yield with_status(own, file, lines["row"].to_numpy())

    parse(first_lines(files[0].stat), files[0].uri)
    return Rows(files, schema, tables)


def _split(
    fields: pa.Array, n_fields: int, lines: pa.Table, uri: str, expected: str
) -> list[pa.Array]:
    """Return lists of strings, each of `n_fields`, as columns."""
    lengths = pc.list_value_length(fields)
    at = pc.index(pc.not_equal(lengths, n_fields), True).as_py()
    if at >= 0:
        raise line_error(uri, lines["row"][at].as_py(), f"has {lengths[at]} columns, {expected}")
    return [pc.list_element(fields, n) for n in range(n_fields)]
