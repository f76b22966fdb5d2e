"""Exports have every row exactly, and training data that its readers take as it is."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from producer.export.exporting import Format, export
from producer.export.training import Choice
from rankmill.errors import InputError, OutputTaken
from rankmill.output.output import Output
from tests.support.finished import finished, planned
from tests.support.inputs import control, everything_under, read_output
from worker.trec import write_trec_run

# Logits by document; a text is its own score.
QUERIES = {
    "q1": {"a": 9.0, "b": 8.5, "c": 6.0, "d": 1.0},
    "q2": {"e": 2.0, "f": 1.75},
    "q3": {"g": -1.0},
}
NOTES = {"a": None, "b": ""}


def output_of(folder: Path, **options: Any) -> Output:
    rows = [
        {
            **{"query_id": query, "doc_id": doc, "query": f"text of {query}"},
            **{
                "document": str(logit),
                "note": None if doc == "a" else "" if doc == "b" else "x,\n",
            },
        }
        for query, docs in QUERIES.items()
        for doc, logit in reversed(docs.items())
    ]
    return finished(planned(rows, folder, shard_pairs=3, **options))


def test_jsonl_and_csv_have_every_row_of_the_parts(tmp_path: Path) -> None:
    output = output_of(tmp_path)
    parts = read_output(tmp_path / "out")
    done = export(output, "jsonl")
    assert done.file_uri == str(tmp_path / "out.jsonl") and done.n_rows == len(parts) == 7
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == parts
    export(output, "csv", str(tmp_path / "a.csv.gz"))
    text = gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).decode()
    assert [row["note"] for row in csv.DictReader(text.splitlines(keepends=True))] == [
        row["note"] or "" for row in parts
    ]
    assert '"q1","b","",' in text and '"q1","a",,' in text  # a text, and null


def test_runs_have_the_order_of_the_result(tmp_path: Path) -> None:
    output = output_of(tmp_path, trec_run=True)
    export(output, "trec", str(tmp_path / "a.trec"))
    write_trec_run(output.load_job())
    run = (control(tmp_path / "out") / "run.trec").read_text()
    assert (tmp_path / "a.trec").read_text() == run
    export(output, "msmarco", str(tmp_path / "a.tsv"))
    assert (tmp_path / "a.tsv").read_text().startswith("q1\ta\t1\nq1\tb\t2\n")


def triplets(folder: Path, choice: Choice) -> list[tuple[str, str, str, float]]:
    output = Output(str(folder / "out"))
    path = folder / "t.parquet"
    done = export(output, "st-triplets", str(path), choice, overwrite=True)
    rows = pq.read_table(path).to_pylist()
    assert done.n_rows == len(rows) and done.n_queries == 3
    return [tuple(row.values()) for row in rows]


def test_negatives_are_the_best_scored_below_the_margin(tmp_path: Path) -> None:
    output_of(tmp_path, keep_cols=("query_id", "doc_id"))
    text = "text of q1"
    assert triplets(tmp_path, Choice()) == [
        (text, "9.0", "8.5", 0.5),
        (text, "9.0", "6.0", 3.0),
        (text, "9.0", "1.0", 8.0),
        ("text of q2", "2.0", "1.75", 0.25),
    ]
    assert triplets(tmp_path, Choice(margin=1, n_negatives=1)) == [(text, "9.0", "6.0", 3.0)]
    two = triplets(tmp_path, Choice(margin=2.5, n_positives=2, top=3))
    assert two == [(text, "9.0", "6.0", 3.0), (text, "8.5", "6.0", 2.5)]
    judged = {"q1": {"c": 1, "d": 0}, "q2": {"e": 1, "f": 2}}
    assert triplets(tmp_path, Choice(qrels=judged)) == [(text, "6.0", "1.0", 5.0)]
    with pytest.raises(InputError, match=r"no query gives a row.*lower --margin"):
        triplets(tmp_path, Choice(margin=100))
    assert len(pq.read_table(tmp_path / "t.parquet")) == 1  # the file before stays


def test_training_data_is_taken_by_its_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    output = output_of(tmp_path)
    files: tuple[tuple[str, Format], ...]
    files = (("t.parquet", "st-triplets"), ("s.jsonl", "st-scores"))
    for name, to in files:
        export(output, to, str(tmp_path / name))
        kind = "parquet" if name.endswith("parquet") else "json"
        data = datasets.load_dataset(
            kind, data_files=str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache")
        )
        columns = ["query", "positive", "negative"] if kind == "parquet" else ["query", "document"]
        assert data.column_names == [*columns, "label"]
        assert data.features["label"].dtype in ("float32", "float64")
        assert all(isinstance(data[0][column], str) for column in columns)


@pytest.mark.slow
def test_margin_mse_takes_the_triplets(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    collators = pytest.importorskip("sentence_transformers.sentence_transformer.data_collator")
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    export(output_of(tmp_path), "st-triplets", str(tmp_path / "t.parquet"))
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()

    def preprocess(texts: list[str], **_: Any) -> dict[str, Any]:
        # A text's number is its embedding; queries have none, and are 1.
        values = [1.0 if text.startswith("text of") else float(text) for text in texts]
        return {"input_ids": torch.tensor(values)[:, None]}

    batch = collators.SentenceTransformerDataCollator(preprocess_fn=preprocess)(rows)
    names = [name.removesuffix("_input_ids") for name in batch if name.endswith("_input_ids")]
    assert names == ["query", "positive", "negative"]
    loss = losses.MarginMSELoss(model=torch.nn.Identity())
    embeddings = [batch[f"{name}_input_ids"] for name in names]
    assert loss.compute_loss_from_embeddings(embeddings, batch["label"]).item() == 0


@pytest.mark.parametrize(
    ("options", "to", "why"),
    [
        ({"keep_cols": ("doc_id",)}, "st-scores", "found by column 'query_id', which the job did"),
        ({"keep_cols": ("doc_id",)}, "trec", "kept no column 'query_id'"),
    ],
)
def test_a_result_without_what_a_format_needs_is_refused(
    tmp_path: Path, options: dict[str, Any], to: Format, why: str
) -> None:
    output = output_of(tmp_path, **options)
    before = everything_under(tmp_path)
    with pytest.raises(InputError, match=why):
        export(output, to)
    assert everything_under(tmp_path) == before


def test_places_that_are_wrong_are_refused(tmp_path: Path) -> None:
    output = output_of(tmp_path)
    for name, why in (
        ("a.parquet", "--to csv writes .csv"),
        ("out/a.csv", "lies in the job's folder"),
        ("_rankmill/out/a.csv", "lies in the job's folder"),
    ):
        with pytest.raises(InputError, match=why):
            export(output, "csv", str(tmp_path / name))
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(OutputTaken, match=r"a\.csv is there already.*--overwrite"):
        export(output, "csv", str(tmp_path / "a.csv"))
    assert (tmp_path / "a.csv").read_text() == "mine"
    with pytest.raises(InputError, match="--to st-scores writes"):
        export(output, "st-scores", str(tmp_path / "a.parquet.gz"))


def test_titles_go_before_texts(tmp_path: Path) -> None:
    rows = [
        {"query_id": "q", "query": "how", "doc_id": doc, "document": text, "title": title}
        for doc, text, title in (("a", "", "1"), ("b", "", "2"))
    ]
    output = finished(planned(rows, tmp_path))
    export(output, "st-scores", str(tmp_path / "s.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [(line["document"], line["label"]) for line in lines] == [("2", 2.0), ("1", 1.0)]
