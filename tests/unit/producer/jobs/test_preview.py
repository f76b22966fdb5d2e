from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from producer.jobs.check import plan_job
from producer.jobs.preview import preview
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.output.output import Job
from tests.support.finished import finished
from tests.support.inputs import write
from tests.support.prepared import damage

# Documents that the scorer reads as their scores; the better one comes second.
ROWS = [
    {"query_id": f"q{q}", "doc_id": f"d{q}-{d}", "query": f"query {q}", "document": str(q + d)}
    for q in range(3)
    for d in range(2)
]


def done(source: Path, folder: Path, **options: Any) -> Job:
    spec = JobSpec(
        input_uri=str(source), output_uri=str(folder / "out"), model_id="null", **options
    )
    job = plan_job(spec)
    finished(job)
    return job


def shown(job: Job) -> dict[str, list[tuple[str, int]]]:
    return {
        each.query: [(candidate.label, candidate.place_before) for candidate in each.after]
        for each in preview(job)
    }


WANTED = {f"query {q}": [(f"d{q}-1", 2), (f"d{q}-0", 1)] for q in range(3)}


def test_candidates_are_shown_with_their_earlier_places(tmp_path: Path) -> None:
    assert shown(done(write(ROWS, tmp_path / "in.parquet"), tmp_path)) == WANTED


def test_a_clear_change_that_the_ids_explain_is_shown_first(tmp_path: Path) -> None:
    rows = [
        ("MPEG output for Yorick", "yorick-gl", "0.1", "yorick-mpeg", "3"),
        ("an audio player", "audio-doc", "0.1", "musique", "4"),
        ("a mail reader", "mutt-doc", "0.1", "mail-reader", "0.2"),
        ("Lua bindings", "lua-zip", "0.1", "lua-zip2", "5"),
    ]
    table = [
        {"query_id": f"q{n}", "doc_id": doc_id, "query": query, "document": logit}
        for n, (query, *documents) in enumerate(rows)
        for doc_id, logit in zip(documents[::2], documents[1::2], strict=True)
    ]
    found = preview(done(write(table, tmp_path / "in.parquet"), tmp_path))
    assert [each.after[0].label for each in found] == ["yorick-mpeg", "lua-zip2", "musique"]


def test_files_without_rows_and_columns_of_folders_are_read(tmp_path: Path) -> None:
    for n, row in enumerate(ROWS):
        path = write([row], tmp_path / "in" / f"query_id={row['query_id']}" / f"{n}.parquet")
        table = pq.read_table(path).drop_columns("query_id")
        pq.write_table(table, path)
    pq.write_table(table.slice(1), tmp_path / "in" / "query_id=q0" / "-.parquet")
    assert shown(done(tmp_path / "in", tmp_path)) == WANTED


def test_text_that_is_not_utf_8_gets_replacement_characters(tmp_path: Path) -> None:
    source = write(ROWS, tmp_path / "in.parquet")
    table = pq.read_table(source)
    for name in ("query", "doc_id"):
        values = [f"{value} ".encode() + b"\xff" for value in table[name].to_pylist()]
        if name == "query":
            values[1:] = [value[:-2] for value in values[1:]]
        array = pa.array(values)
        text = pa.Array.from_buffers(pa.string(), len(array), array.buffers())
        table = table.set_column(table.column_names.index(name), name, text)
    pq.write_table(table, source)
    found = shown(done(source, tmp_path))
    assert found["query 1"] == [("d1-1 \ufffd", 2), ("d1-0 \ufffd", 1)]
    assert found["query 0 \ufffd"] == [("d0-1 \ufffd", 2)]


def test_a_damaged_row_group_leaves_the_rest_to_be_shown(tmp_path: Path) -> None:
    source = write(ROWS, tmp_path / "in.parquet", row_group_size=2, compression="none")
    job = done(damage(source, row_group=0), tmp_path, damaged="reject")
    assert shown(job) == {name: WANTED[name] for name in ("query 1", "query 2")}


def test_an_error_shows_nothing(tmp_path: Path) -> None:
    job = done(write(ROWS, tmp_path / "in.parquet"), tmp_path)
    storage.remove_file(job.output.part_uri(0))
    assert preview(job) == []


def test_little_of_a_large_input_is_read(tmp_path: Path) -> None:
    """Long documents are labels where there are no ids."""
    rows = [{"query": f"query {n // 2}", "document": str(n).ljust(600_000)} for n in range(400)]
    job = done(write(rows, tmp_path / "in.parquet"), tmp_path)
    tracemalloc.start()
    found = preview(job)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 3
    assert peak < 2.5 * 2**27
