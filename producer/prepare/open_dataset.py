"""Open a job's files as the dataset to prepare, by their formats and the job's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from producer.formats.arrow import arrow_rows
from producer.formats.delimited import run_rows, tsv_rows
from producer.formats.file_format import FileFormat, detect_format
from producer.formats.jsonl import json_rows
from producer.formats.lines import first_line
from producer.formats.lists import exploded_rows, list_columns
from producer.formats.nested import as_lists, pairs_of_triples
from producer.formats.parquet import parquet_rows
from producer.formats.results import results_rows
from producer.formats.rows import Rows, with_job_ids
from producer.formats.separated import separated_rows
from producer.inputs.columns import check_names, first_stage_columns, id_columns
from producer.inputs.find import find
from producer.inputs.layouts import check_layout, wrong_layout
from producer.inputs.separated_forms import form_of, form_of_texts
from producer.inputs.source import input_schema, read_source
from producer.inputs.usual_names import DOC_ID, QUERY_ID
from producer.prepare.dataset import Dataset, Pairs
from producer.prepare.texts import Texts
from producer.prepare.trec_run import JoinedRun
from producer.tables.column_kinds import NO_TITLE
from producer.tables.database import Database
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import InputFile, InputRole
from rankmill.tables.first_stage import SCORE

_IDS = ("_id", "id")
_QUERY_IDS = ("query_id", *_IDS, *QUERY_ID[1:])
_DOC_IDS = ("doc_id", "docid", *_IDS, *DOC_ID[2:])
_TEXTS = ("text", "query", "document", "contents", "passage", "content", "query_text")
# Formats whose ids have a type; those of the others are text.
_WITH_TYPES = (FileFormat.PARQUET, FileFormat.ARROW, FileFormat.JSONL)
# A row of lists becomes a thousand rows or more.
_BATCH_ROWS, _LIST_BATCH_ROWS = 4096, 64


def open_dataset(
    spec: JobSpec, files: tuple[InputFile, ...], database: Database, *, only_beginning: bool = False
) -> Dataset:
    """Return the dataset to prepare.

    Args:
        spec: the job, as `pinned` returns it.
        files: the files of all roles, as `find_inputs` returns them.
        database: reads JSONL; in memory, and used for nothing else.
        only_beginning: take the types in JSONL from its first lines.

    Raises:
        InputError: the layout is another one, or columns are missing or of the wrong type.
    """
    opener = _Opener(spec, files, database, only_beginning)
    rows = open_candidates(spec, files, database, only_beginning=only_beginning)
    uri = rows.files[0].uri
    check_names(uri, rows.schema)
    check_layout(spec, uri, rows.schema)
    if only_beginning and detect_format(rows.files[0].stat) == FileFormat.JSONL:
        spec = spec.model_copy(update={"keep_cols": None})  # later lines may have these columns
    if spec.layout == "run":
        of_queries: tuple[InputRole, str | None, tuple[str, ...]]
        of_queries = ("queries", spec.query_id_col, _QUERY_IDS)
        queries = opener.texts(*of_queries, (spec.query_col, *_TEXTS), NO_TITLE)
        corpus = opener.texts(
            "corpus", spec.doc_id_col, _DOC_IDS, (spec.document_col, *_TEXTS), spec.title_col
        )
        prompts = None
        if spec.prompt_col is not None:
            prompts = opener.texts(*of_queries, (spec.prompt_col,), NO_TITLE)
        if detect_format(rows.files[0].stat) not in _WITH_TYPES:
            queries, corpus = queries.with_ids_as_text(), corpus.with_ids_as_text()
            prompts = prompts and prompts.with_ids_as_text()
        return JoinedRun(spec, rows, queries, corpus, prompts)
    if spec.layout == "lists":
        rows = exploded_rows(spec, rows)
    return Pairs(spec, with_job_ids(rows, id_columns(spec)))


def open_candidates(
    spec: JobSpec, files: tuple[InputFile, ...], database: Database, *, only_beginning: bool = False
) -> Rows:
    """Return the rows of a job's input; arguments and errors as of `open_dataset`."""
    rows = _Opener(spec, files, database, only_beginning).candidates()
    if spec.layout == "run":
        return pairs_of_triples(rows, id_columns(spec)[1])
    if spec.layout == "pairs":
        return rows
    return as_lists(rows, spec.query_col, id_columns(spec)[0], spec.document_col)


@dataclass(frozen=True)
class _Opener:
    """Opens the files of one role by their format."""

    spec: JobSpec
    files: tuple[InputFile, ...]
    database: Database
    only_beginning: bool

    def candidates(self) -> Rows:
        """Return the input's rows, as its layout has them."""
        spec, files = self.spec, self._of_role("input")
        file_format = detect_format(files[0].stat)
        if file_format == FileFormat.PARQUET:
            return self._parquet("input", files)
        if file_format == FileFormat.JSONL:
            texts = {"query": spec.query_col, "document": spec.document_col}
            if spec.layout == "pairs" and spec.title_col not in (NO_TITLE, ""):
                texts["title"] = spec.title_col or "title"
            if spec.prompt_col is not None:
                texts["prompt"] = spec.prompt_col
            return self._json(files, texts)
        if file_format == FileFormat.ARROW:
            return arrow_rows(files)
        if file_format == FileFormat.RESULTS and spec.layout == "run":
            return results_rows(files)
        if file_format == FileFormat.RESULTS:
            raise wrong_layout(files[0].uri, "run", "it has ids and scores")
        form = form_of(spec, files[0], file_format)
        if form is not None:
            return separated_rows(files, form, numbers={SCORE, *first_stage_columns(spec)})
        if spec.layout == "run":
            return run_rows(files)
        raise wrong_layout(files[0].uri, "run", first_line(files[0].stat).strip())

    def texts(
        self,
        role: InputRole,
        id_col: str | None,
        usual_ids: tuple[str, ...],
        text_cols: tuple[str, ...],
        title_col: str | None,
    ) -> Texts:
        """Return the texts of a role, in the first columns of each kind that are there."""
        files = self._of_role(role)
        file_format = detect_format(files[0].stat)
        if file_format == FileFormat.PARQUET:
            rows = self._parquet(role, files)
        elif file_format == FileFormat.JSONL:
            rows = self._json(files)
        elif file_format == FileFormat.ARROW:
            rows = arrow_rows(files)
        else:
            form = form_of_texts((usual_ids, text_cols), files[0], file_format)
            rows = tsv_rows(files) if form is None else separated_rows(files, form)
        ids = usual_ids if id_col is None else (id_col, *usual_ids)
        return Texts.of(f"--{role}", rows, ids, text_cols, title_col)

    def _of_role(self, role: InputRole) -> tuple[InputFile, ...]:
        return tuple(file for file in self.files if file.role == role)

    def _json(self, files: tuple[InputFile, ...], texts: Mapping[str, str] | None = None) -> Rows:
        return json_rows(files, self.database, texts, only_beginning=self.only_beginning)

    def _parquet(self, role: InputRole, files: tuple[InputFile, ...]) -> Rows:
        spec, is_input = self.spec, role == "input"
        uris = spec.input_uri if is_input else getattr(spec, role)
        version = getattr(spec, f"{role}_version")
        deleted = None
        if version is None:
            schema = input_schema(files)
        else:  # a table, which has columns that its files lack
            found = find(uris, version, "INPUT" if is_input else f"--{role}")
            schema = read_source(found).schema
            deleted = found.table.deleted if found.table is not None else None
        has_lists = is_input and spec.layout == "lists"
        return parquet_rows(
            files,
            schema,
            damaged=spec.damaged if is_input else "fail",
            batch_rows=_LIST_BATCH_ROWS if has_lists else _BATCH_ROWS,
            deleted=deleted,
            lists=list_columns(spec, schema) if has_lists else (),
        )
