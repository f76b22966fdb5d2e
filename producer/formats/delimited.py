"""Rows of text files without names for their columns: TREC runs, and texts as TSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.lines import first_lines, line_error, read_lines
from producer.formats.rows import with_status
from rankmill.contract.job import InputFile
from rankmill.errors import InputError

_RUN = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float64())])
_TSV = pa.schema([("id", pa.string()), ("text", pa.string())])
# Of a run's line `query_id Q0 doc_id rank score tag`; the order of its lines says what rank does.
_QUERY_ID, _DOC_ID, _SCORE, _N_RUN_FIELDS = 0, 2, 4, 6


@dataclass(frozen=True)
class DelimitedRows:
    """
    Attributes:
        parse: from a table as `read_lines` gives it and the file's URI to a table of `schema`.
    """

    files: tuple[InputFile, ...]
    schema: pa.Schema
    parse: Callable[[pa.Table, str], pa.Table]

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        for file in self.files:
            for lines in read_lines(file.stat):
                own = self.parse(lines, file.uri).select(list(names))
                yield with_status(own, file, lines["row"].to_numpy())

    def check_beginning(self) -> None:
        """
        Raises:
            InputError: one of the first lines is not as it should be.
        """
        self.parse(first_lines(self.files[0].stat), self.files[0].uri)


def run_rows(files: tuple[InputFile, ...]) -> DelimitedRows:
    """TREC runs: string ids and the score."""
    return DelimitedRows(files, _RUN, _parse_run)


def tsv_rows(files: tuple[InputFile, ...]) -> DelimitedRows:
    """`id<TAB>text` without a header, as MS MARCO has it."""
    return DelimitedRows(files, _TSV, _parse_tsv)


def _parse_run(lines: pa.Table, uri: str) -> pa.Table:
    line = pc.ascii_trim_whitespace(lines["line"].combine_chunks())
    expected = "where a TREC run has 6: query_id Q0 doc_id rank score tag"
    fields = _split(pc.ascii_split_whitespace(line), _N_RUN_FIELDS, lines, uri, expected)
    try:
        score = fields[_SCORE].cast(pa.float64())
    except pa.ArrowInvalid:
        raise _no_number(fields[_SCORE], lines, uri) from None
    ids = [fields[at].cast(pa.string()) for at in (_QUERY_ID, _DOC_ID)]
    return pa.table([*ids, score], _RUN)


def _parse_tsv(lines: pa.Table, uri: str) -> pa.Table:
    fields = pc.split_pattern(lines["line"].combine_chunks(), "\t")
    pair = _split(fields, len(_TSV), lines, uri, "where texts have 2: id<TAB>text")
    return pa.table([field.cast(pa.string()) for field in pair], _TSV)


def _split(
    fields: pa.Array, n_fields: int, lines: pa.Table, uri: str, expected: str
) -> list[pa.Array]:
    """Lists of strings as columns, each list of the same length."""
    lengths = pc.list_value_length(fields)
    wrong = pc.not_equal(lengths, n_fields)
    at = pc.index(wrong, True).as_py()
    if at >= 0:
        raise line_error(uri, lines["row"][at].as_py(), f"has {lengths[at]} columns, {expected}")
    return [pc.list_element(fields, n) for n in range(n_fields)]


def _no_number(scores: pa.Array, lines: pa.Table, uri: str) -> InputError:
    for score, row in zip(scores.to_pylist(), lines["row"].to_pylist(), strict=True):
        try:
            pa.scalar(score).cast(pa.float64())
        except pa.ArrowInvalid:
            return line_error(uri, row, f"has the score '{score}', which is no number")
    raise AssertionError("Arrow refused a score that it then took")
