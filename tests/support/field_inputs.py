"""The inputs that people have, each tried as a job does, with the outcome of each.

docs/tables.py writes the outcomes to docs/inputs.md.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from producer.cli.fact_lines import count_text
from producer.inputs.find import find
from producer.inputs.layouts import check_layout
from producer.inputs.source import read_pairs
from producer.jobs.check import check
from producer.prepare.prepare import prepare
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import STATUS_COLUMNS
from rankmill.errors import RankmillError

Content = str | bytes


@dataclass(frozen=True)
class FieldInput:
    """An input: its files by name, the first of which is INPUT unless `place` names another."""

    name: str
    files: dict[str, Content]
    options: dict[str, Any] = field(default_factory=dict)
    place: str | None = None


@dataclass(frozen=True)
class Tried:
    """The outcome of an input."""

    name: str
    shown: str
    end: str


def tried_inputs() -> Iterator[Tried]:
    """Yield the outcome of every input: its pairs and columns, or the error."""
    for case in FIELD_INPUTS:
        flags = []
        for name, value in case.options.items():
            shown = ",".join(value) if isinstance(value, tuple) else value
            flags.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {shown}"))
        with tempfile.TemporaryDirectory() as folder:
            yield Tried(case.name, " ".join(flags), outcome(case, Path(folder)))


def outcome(case: FieldInput, folder: Path) -> str:
    """Return what happens with an input, in a line without the folder's name."""
    try:
        pairs, notes = pairs_of(case, folder)
    except RankmillError as error:
        return f"refused: {error}".replace(f"{folder}/", "")
    names = ", ".join(name for name in pairs.column_names if name not in STATUS_COLUMNS)
    n_refused = pairs.num_rows - pairs[STATUS_COLUMNS[0]].null_count
    refused = f", {n_refused} without texts" if n_refused else ""
    noted = "".join(f"; {note}" for note in notes)
    return f"{count_text(pairs.num_rows, 'pair')}{refused}: {names}{noted}"


def pairs_of(case: FieldInput, folder: Path) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the pairs of an input, and the notes of its check."""
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    places = {
        name: str(folder / value) if name in ("queries", "corpus") else value
        for name, value in case.options.items()
    }
    place = folder / (case.place or next(iter(case.files)))
    spec = JobSpec(input_uri=str(place), output_uri=str(folder / "out"), model_id="null", **places)
    job = check(spec)
    spec = job.record.spec
    if not job.record.prepares:
        source = read_pairs(spec, find(spec.input_uri))
        check_layout(spec, source.files[0].uri, source.schema)
        table = pa.concat_tables(
            pq.read_table(file.uri, partitioning=None) for file in source.files
        )
        for name in STATUS_COLUMNS:
            table = table.append_column(name, pa.nulls(table.num_rows))
        return table, job.notes
    prepare(spec, job.files, str(folder / "prepared"), folder / "scratch", lambda *_: None)
    parts = sorted((folder / "prepared").iterdir())
    return pa.concat_tables(map(pq.read_table, parts)), job.notes


def _jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _parquet(**columns: list[Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _arrow(new: Callable[[Any, pa.Schema], Any], **columns: list[Any]) -> bytes:
    sink, table = io.BytesIO(), pa.table(columns)
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


_PAIR = {"query": ["how"], "document": ["so"]}
_FIELD_PAIR = {"qid": ["007"], "pid": ["9"], "query": ["how"], "passage": ["so"]}
_TEXTS: dict[str, Content] = {
    "queries.tsv": "1\thow\n",
    "corpus.jsonl": _jsonl({"_id": "7", "title": "On", "text": "so"}, {"_id": "8", "text": "no"}),
}
_RUN = {"layout": "run", "queries": "queries.tsv", "corpus": "corpus.jsonl"}
_LISTS = {"layout": "lists", "explode": True}
_RANK_LLM = _jsonl(
    {
        "query": {"text": "how", "qid": "q1"},
        "candidates": [
            {"docid": "d1", "score": 3.5, "doc": {"title": "On", "contents": "so"}},
            {"docid": "d2", "score": 2.5, "doc": {"title": "", "contents": "no"}},
        ],
    }
)
_TEVATRON = _jsonl(
    {
        **{"query_id": "1", "query": "how"},
        "positive_passages": [{"docid": "a", "title": "On", "text": "so"}],
        "negative_passages": [{"docid": "b", "title": "", "text": "no"}],
    }
)
_STREAM = _arrow(pa.ipc.new_stream, **_FIELD_PAIR)

FIELD_INPUTS = (
    FieldInput("CSV with a header", {"a.csv": "query,document\nhow,so\n"}),
    FieldInput("CSV with the field's names", {"a.csv": 'qid,pid,query,text\n007,9,how,"so\n"\n'}),
    FieldInput("CSV of pandas, with its index", {"a.csv": ",query,document\n0,how,so\n"}),
    FieldInput("CSV with two columns for the text", {"a.csv": "query,text,passage\nhow,so,no\n"}),
    FieldInput("CSV with names of its own", {"a.csv": "frage,antwort\nhow,so\n"}),
    FieldInput(
        "the same, with flags",
        {"a.csv": "frage,antwort\nhow,so\n"},
        {"query_col": "frage", "document_col": "antwort"},
    ),
    FieldInput("CSV without a header", {"a.csv": "how,so\n"}, {"columns": ("query", "document")}),
    FieldInput("CSV with semicolons", {"a.csv": "query;document\nhow;so\n"}),
    FieldInput("CSV with a value too few", {"a.csv": "query,document\nhow,so\nhow\n"}),
    FieldInput("CSV cut inside a quote", {"a.csv": 'query,document\nhow,"so\n'}),
    FieldInput("CSV in Latin-1", {"a.csv": b"query,document\nhow,caf\xe9\n"}),
    FieldInput("TSV with a header", {"a.tsv": 'query\tdocument\nhow\t"so"\n'}),
    FieldInput("TSV without a header, 2 columns", {"a.tsv": "how\tso\n"}),
    FieldInput(
        "MS MARCO top1000 (qid, pid, query, passage)",
        {"top1000.dev.tsv.gz": gzip.compress(b'1\t7\thow\t"so\n1\t8\thow\tno\n', mtime=0)},
    ),
    FieldInput("MS MARCO run (qid, pid, rank)", {"run.tsv": "1\t7\t1\n1\t8\t2\n", **_TEXTS}, _RUN),
    FieldInput(
        "the same, not in the order of ranks", {"run.tsv": "1\t7\t1\n1\t8\t0\n", **_TEXTS}, _RUN
    ),
    FieldInput("MS MARCO triples of ids", {"triples.tsv": "1\t7\t8\n1\t7\t9\n", **_TEXTS}, _RUN),
    FieldInput(
        "the same, named",
        {"triples.tsv": "1\t7\t8\n1\t7\t9\n", **_TEXTS},
        {**_RUN, "columns": ("query_id", "positive", "negative"), "duplicates": "keep"},
    ),
    FieldInput("MS MARCO triples of texts", {"triples.tsv": 'how\t"so\tno\n'}, _LISTS),
    FieldInput(
        "BEIR, MTEB, ranx results",
        {"results.json": '{"1": {"7": 1.5, "8": 0.5}}', **_TEXTS},
        _RUN,
    ),
    FieldInput("the same, cut off", {"results.json": '{"1": {"7": 1.5, "8"', **_TEXTS}, _RUN),
    FieldInput(
        "TREC run, and a corpus with integer ids",
        {
            **{"run.trec": "1 Q0 7 1 9.5 bm25\n1 Q0 07 2 9.0 bm25\n", **_TEXTS},
            "corpus.parquet": _parquet(id=[7, 8], text=["so", "no"]),
        },
        {**_RUN, "corpus": "corpus.parquet"},
    ),
    FieldInput("rank_llm JSONL", {"a.jsonl": _RANK_LLM}, _LISTS),
    FieldInput("Tevatron JSONL", {"a.jsonl": _TEVATRON}, _LISTS),
    FieldInput("Tevatron JSONL as pairs", {"a.jsonl": _TEVATRON}),
    FieldInput(
        "JSONL, bzip2",
        {"a.jsonl.bz2": bz2.compress(_jsonl({"query": "how", "text": "so"}).encode())},
    ),
    FieldInput("JSONL cut off", {"a.jsonl": '{"query": "how", "document": "so"}\n{"query": "h'}),
    FieldInput("Arrow IPC file", {"a.arrow": _arrow(pa.ipc.new_file, **_FIELD_PAIR)}),
    FieldInput("Arrow IPC stream", {"a.arrows": _STREAM}),
    FieldInput("Arrow IPC stream, cut between its parts", {"a.arrows": _STREAM[:-8]}),
    FieldInput(
        "Hugging Face save_to_disk",
        {
            "saved/data-00000-of-00001.arrow": _STREAM,
            **{f"saved/{name}.json": "{}" for name in ("dataset_info", "state")},
        },
        place="saved",
    ),
    FieldInput(
        "Hugging Face save_to_disk, with splits",
        {
            **{f"saved/{name}/data-00000-of-00001.arrow": _STREAM for name in ("train", "test")},
            "saved/dataset_dict.json": "{}",
        },
        place="saved",
    ),
    FieldInput(
        "Parquet without a suffix, of Athena",
        {"athena/20261128_000000_00001_abcde": _parquet(**_PAIR)},
        place="athena",
    ),
    FieldInput("Parquet with the field's names", {"a.parquet": _parquet(**_FIELD_PAIR)}),
    FieldInput(
        "Parquet with two document ids",
        {"a.parquet": _parquet(**_PAIR, docid=["d"], passage_id=["d-1"])},
    ),
)
