"""A job's input files of any form and layout: found, checked by their beginnings, and opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from producer.formats.delimited import DelimitedRows, run_rows, tsv_rows
from producer.formats.forms import Form, form_of, is_run_line
from producer.formats.jsonl import JsonRows, read_json
from producer.formats.lines import first_lines
from producer.formats.lists import USUAL_LISTS, ExplodedRows, list_columns
from producer.formats.rows import ParquetRows, Rows, RowsWithIds
from producer.inputs.columns import check_names, id_columns, key_columns
from producer.inputs.find import Found, find
from producer.inputs.layouts import check_layout, wrong_layout
from producer.inputs.source import input_schema, read_source
from producer.prepare.dataset import ClusteredPairs, Dataset, PairsAsTheyCome
from producer.prepare.texts import Texts
from producer.prepare.trec_run import JoinedRun
from producer.tables.database import Database
from producer.tables.text_columns import NO_TITLE
from rankmill.contract.job import InputFile, InputRole, JobSpec
from rankmill.errors import InputError

_IDS = ("_id", "id")
_QUERY_IDS, _DOC_IDS = ("query_id", *_IDS), ("doc_id", "docid", *_IDS)
_TEXTS = ("text", "query", "document", "contents")
# A row of lists becomes a thousand rows or more.
_BATCH_ROWS, _LIST_BATCH_ROWS = 4096, 64


def needs_prepare(spec: JobSpec, found: Found | None = None) -> bool:
    """Whether the input is anything but Parquet with pairs clustered by query, which all count.

    Args:
        found: the input, where it was found already.

    Raises:
        InputError: nothing is there.
    """
    if spec.layout != "pairs" or spec.cluster:
        return True
    found = found or find(spec.input_uri, spec.input_version)
    return found.form != Form.PARQUET or (found.table is not None and bool(found.table.deleted))


def find_inputs(spec: JobSpec, found: Found | None = None) -> tuple[InputFile, ...]:
    """All files of the input, the queries and the corpus, in this order; those of each by name.

    Reads footers and the first lines of text: `n_rows` is 0 where the form does not tell.

    Raises:
        InputError: nothing is there, another layout, columns missing or of the wrong type, ids
            that cannot be joined, and other faults that show in what is read.
    """
    for flag, uris, version in (
        ("--queries", spec.queries, spec.queries_version),
        ("--corpus", spec.corpus, spec.corpus_version),
    ):
        if spec.layout == "run" and uris is None:
            raise InputError(f"a run needs its texts: give {flag}")
        if spec.layout != "run" and uris is not None:
            raise InputError(f"{flag} is for --layout run, not {spec.layout}")
        if spec.layout != "run" and version is not None:
            raise InputError(f"{flag}-version is for --layout run, not {spec.layout}")
    lists = USUAL_LISTS if spec.layout == "lists" else ()
    found = found or find(spec.input_uri, spec.input_version)
    files = [*_files(found, "input", (*key_columns(spec), *lists))]
    texts = _found_texts(spec)
    for role, named in texts.items():
        files += _files(named, role)
    with Database() as database:
        open_dataset(_pinned(spec, found, texts), tuple(files), database, only_beginning=True)
    return tuple(files)


def pinned(spec: JobSpec, found: Found) -> JobSpec:
    """The spec with the versions of the tables that its inputs are: later ones have other rows.

    Raises:
        InputError: as `find`, of queries and corpus.
    """
    return _pinned(spec, found, _found_texts(spec))


def _pinned(spec: JobSpec, found: Found, texts: Mapping[InputRole, Found]) -> JobSpec:
    named = {"input": found, **texts}
    versions = {
        f"{role}_version": each.table.version
        for role, each in named.items()
        if each.table is not None
    }
    return spec.model_copy(update=versions)


def _found_texts(spec: JobSpec) -> dict[InputRole, Found]:
    """The queries and the corpus of a run."""
    if spec.queries is None or spec.corpus is None:
        return {}
    return {
        "queries": find(spec.queries, spec.queries_version, "--queries"),
        "corpus": find(spec.corpus, spec.corpus_version, "--corpus"),
    }


def open_dataset(
    spec: JobSpec, files: tuple[InputFile, ...], database: Database, *, only_beginning: bool = False
) -> Dataset:
    """What `find_inputs` found as the dataset to prepare.

    Args:
        spec: as `pinned` gives it.
        database: reads JSONL; in memory, and no other queries are put to it.
        only_beginning: take the types in JSONL from its first lines.
    """

    def files_of(role: InputRole) -> tuple[InputFile, ...]:
        return tuple(file for file in files if file.role == role)

    reading = _Reading(spec, database, only_beginning)
    rows = reading.rows(files_of("input"))
    check_names(rows.files[0].uri, rows.schema)
    check_layout(spec, rows.files[0].uri, rows.schema)
    if only_beginning and isinstance(rows, JsonRows):
        spec = spec.model_copy(update={"keep_cols": None})  # which may come in later lines
    if spec.layout == "run":
        queries = reading.queries(files_of("queries"))
        return JoinedRun(spec, rows, queries, reading.corpus(files_of("corpus")))
    if spec.layout == "lists":
        rows = ExplodedRows(spec, rows)
        candidates = None if spec.explode else rows.candidate_columns
        dataset = ClusteredPairs if spec.cluster else PairsAsTheyCome
        with_ids = RowsWithIds.of(rows, id_columns(spec))
        return dataset(spec, with_ids, candidates, rows.title_column)
    return ClusteredPairs(spec, RowsWithIds.of(rows, id_columns(spec)))


def _files(found: Found, role: InputRole, in_all: tuple[str, ...] = ()) -> tuple[InputFile, ...]:
    if found.form == Form.PARQUET:
        files = read_source(found, in_all=in_all).files
        return tuple(file.model_copy(update={"role": role}) for file in files)
    return tuple(
        InputFile(uri=file.uri, n_rows=0, size_bytes=file.size_bytes, state=file.state, role=role)
        for file in found.files
    )


@dataclass(frozen=True)
class _Reading:
    """Opens files by their form."""

    spec: JobSpec
    database: Database
    only_beginning: bool

    def rows(self, files: tuple[InputFile, ...]) -> Rows:
        form = form_of(files[0].stat)
        if form == Form.PARQUET:
            is_lists = self.spec.layout == "lists"
            found = _parquet(
                files,
                self.spec.input_uri,
                self.spec.input_version,
                keep_damaged=self.spec.damaged == "reject",
                batch_rows=_LIST_BATCH_ROWS if is_lists else _BATCH_ROWS,
            )
            candidates = tuple(list_columns(self.spec, found.schema)) if is_lists else ()
            return replace(found, candidates=candidates)
        if form == Form.JSONL:
            texts = {"query": self.spec.query_col, "document": self.spec.document_col}
            if self.spec.layout == "pairs" and self.spec.title_col not in (NO_TITLE, ""):
                texts["title"] = self.spec.title_col or "title"
            return self._json(files, texts)
        if self.spec.layout == "run":
            return self._delimited(run_rows(files))
        line = next(iter(first_lines(files[0].stat)["line"].to_pylist()), "")
        if is_run_line(line):
            raise wrong_layout(files[0].uri, "run", line.strip())
        raise InputError(
            f"{files[0].uri}: {form} is not read as --layout {self.spec.layout}; "
            "give Parquet or JSONL"
        )

    def queries(self, files: tuple[InputFile, ...]) -> Texts:
        ids = _wanted_first(self.spec.query_id_col, _QUERY_IDS)
        texts = _wanted_first(self.spec.query_col, _TEXTS)
        rows = self._texts(files, self.spec.queries, self.spec.queries_version, "--queries")
        return Texts.of("--queries", rows, ids, texts)

    def corpus(self, files: tuple[InputFile, ...]) -> Texts:
        ids = _wanted_first(self.spec.doc_id_col, _DOC_IDS)
        texts = _wanted_first(self.spec.document_col, _TEXTS)
        rows = self._texts(files, self.spec.corpus, self.spec.corpus_version, "--corpus")
        return Texts.of("--corpus", rows, ids, texts, self.spec.title_col)

    def _texts(
        self, files: tuple[InputFile, ...], uris: str | None, version: str | None, flag: str
    ) -> Rows:
        form = form_of(files[0].stat)
        if form == Form.PARQUET:
            return _parquet(files, str(uris), version, flag)
        return self._json(files) if form == Form.JSONL else self._delimited(tsv_rows(files))

    def _json(self, files: tuple[InputFile, ...], texts: Mapping[str, str] | None = None) -> Rows:
        return read_json(files, self.database, texts, only_beginning=self.only_beginning)

    def _delimited(self, rows: DelimitedRows) -> Rows:
        rows.check_beginning()
        return rows


def _wanted_first(wanted: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    return usual if wanted is None else (wanted, *usual)


def _parquet(
    files: tuple[InputFile, ...],
    uris: str,
    version: str | None,
    flag: str = "INPUT",
    *,
    keep_damaged: bool = False,
    batch_rows: int = _BATCH_ROWS,
) -> ParquetRows:
    if version is None:
        return ParquetRows(files, input_schema(files), keep_damaged, batch_rows)
    found = find(uris, version, flag)  # a table, which has columns that its files lack
    deleted = found.table.deleted if found.table is not None else {}
    return ParquetRows(files, read_source(found).schema, keep_damaged, batch_rows, deleted)
