"""Read text files without column names as rows: TREC runs, and texts as TSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.lines import first_lines, line_error, read_lines
from producer.formats.rows import Rows, with_status
from rankmill.contract.plan import InputFile

_RUN = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float64())])
_TSV = pa.schema([("id", pa.string()), ("text", pa.string())])
# Of a run's line `query_id Q0 doc_id rank score tag`; the order of the lines replaces the rank.
_QUERY_ID, _DOC_ID, _SCORE, _N_RUN_FIELDS = 0, 2, 4, 6


def run_rows(files: tuple[InputFile, ...]) -> Rows:
    """Return the rows of TREC runs: ids as strings, and the score.

    Raises:
        InputError: one of the first lines is not a run's.
    """

    def parse(lines: pa.Table, uri: str) -> pa.Table:
        line = pc.ascii_trim_whitespace(lines["line"].combine_chunks())
        expected = "where a TREC run has 6: query_id Q0 doc_id rank score tag"
        fields = _split(pc.ascii_split_whitespace(line), _N_RUN_FIELDS, lines, uri, expected)
        ids = [fields[at].cast(pa.string()) for at in (_QUERY_ID, _DOC_ID)]
        try:
            return pa.table([*ids, fields[_SCORE].cast(pa.float64())], _RUN)
        except pa.ArrowInvalid:
            rows = lines["row"].to_pylist()
            for score, row in zip(fields[_SCORE].to_pylist(), rows, strict=True):
                try:
                    pa.scalar(score).cast(pa.float64())
                except pa.ArrowInvalid as error:
                    what = f"has the score '{score}', which is not a number"
                    raise line_error(uri, row, what) from error
            raise

    return _delimited(files, _RUN, parse)


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
