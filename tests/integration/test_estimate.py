"""`rankmill estimate` as a user types it, held against what a run and a naive loop then do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producer.estimates.estimate import estimate
from rankmill import storage
from rankmill.contract.job import JobOptions
from rankmill.settings import CHECKOUT
from tests.support.command import called
from tests.support.inputs import everything_under, pairs, read_output, read_rejected, write
from tests.support.prepared import write_jsonl, write_lines

DEMO = CHECKOUT / "models" / "demo-reranker"


def estimated(*arguments: object, folder: Path) -> dict[str, Any]:
    done = called("estimate", *arguments, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_estimate_of_all_rows_is_what_the_run_then_counts(tmp_path: Path) -> None:
    rows = pairs(12, 9)
    rows[5]["document"] = " "
    write(rows, tmp_path / "in" / "0.parquet")
    options = ("--model", DEMO, "--max-length", 12, "--shard-pairs", 30)
    before = everything_under(tmp_path)
    found = estimated("in", *options, "--no-calibrate", folder=tmp_path)
    assert everything_under(tmp_path) == before
    run = called("run", "in", "out", *options, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    scored, rejected = read_output(tmp_path / "out"), read_rejected(tmp_path / "out")
    assert found["rejected_by_reason"] == {rejected[0]["reason"]: 1}
    assert found["n_sample_rows"] == found["n_rows"] == len(scored) + 1
    tokens = found["tokens"]
    assert tokens["n_tokens"] == sum(row["n_tokens"] for row in scored)
    assert tokens["lengths"]["max"] == max(row["n_tokens"] for row in scored)
    n_truncated = sum(row["truncated"] for row in scored)
    assert 0 < n_truncated < len(scored)
    assert tokens["truncated_share"] == pytest.approx(n_truncated / len(scored))
    manifest = json.loads((tmp_path / "_rankmill" / "out" / "manifest.json").read_bytes())
    assert found["n_query_groups"] == manifest["n_query_groups"]
    assert found["n_shards"] == len(manifest["parts"])
    (scoring,) = manifest["scoring"]
    assert {name: found[name] for name in ("path", "path_reason", "precision", "device")} == {
        name: scoring[name] for name in ("path", "path_reason", "precision", "device")
    }
    assert found["pace"] is None


def test_the_padding_is_what_cross_encoder_predict_really_computes(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    rows = pairs(20, 9)
    write(rows, tmp_path / "in.parquet")
    found = estimated("in.parquet", "--model", "demo", "--no-calibrate", folder=tmp_path)
    model = CrossEncoder(str(DEMO), device="cpu")
    sizes: list[tuple[int, int]] = []
    embeddings = model.model.get_input_embeddings()
    embeddings.register_forward_pre_hook(
        lambda module, given: sizes.append((given[0].numel(), int((given[0] != 0).sum())))
    )
    model.predict([(row["query"], row["document"]) for row in rows])
    computed, real = (sum(size) for size in zip(*sizes, strict=True))
    assert found["tokens"]["n_tokens"] == real
    assert found["tokens"]["padding_share"] == pytest.approx(1 - real / computed)


def test_a_calibrated_estimate_gives_the_time(tmp_path: Path) -> None:
    write(pairs(30, 20), tmp_path / "in.parquet")
    done = called("estimate", "in.parquet", "--model", "demo", "--devices", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for fact in ("600 rows in 1 file", "30, with 20 candidates each", "the whole input", "█"):
        assert fact in said
    assert "on 2 devices" in said and "(calibrated)" in said
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert everything_under(tmp_path) == ["in.parquet"]


def test_time_at_a_given_pace_is_arithmetic(tmp_path: Path) -> None:
    write(pairs(10, 10), tmp_path / "in.parquet")
    for options in (("demo", "--pairs-per-s", 50), ("null:50",)):
        arguments = ("in.parquet", "--device", "cpu", "--model", *options, "--price-per-hour", 9)
        found = estimated(*arguments, folder=tmp_path)
        assert found["pace"]["device_hours"] == pytest.approx(100 / 50 / 3600)
        assert found["pace"]["n_calibrated_pairs"] is None
        assert found["cost"]["total"] == pytest.approx(9 * 100 / 50 / 3600)
        assert found["cost"]["per_million_pairs"] == pytest.approx(9 * 1e6 / 50 / 3600)
        assert (found["tokens"] is None) == (options[0] == "null:50")


def test_an_input_on_s3_is_estimated_as_one_on_disk(s3: str, tmp_path: Path) -> None:
    path = write(pairs(40, 25), tmp_path / "in.parquet", row_group_size=90)
    storage.write_bytes(f"{s3}/in/0.parquet", path.read_bytes())
    local, remote = (
        estimate(JobOptions(input_uri=uri, model_id="null:7"), n_sample=200)
        for uri in (str(path), f"{s3}/in")
    )
    assert remote == local.model_copy(update={"input_uri": f"{s3}/in"})
    assert (remote.n_sample_rows, remote.n_sample_places) == (200, 16)
    assert storage.names(f"{s3}/in") == ["0.parquet"]


def lists_of(rows: list[dict[str, Any]], folder: Path) -> list[object]:
    lists: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = {"query_id": row["query_id"], "query": row["query"], "documents": []}
        lists.setdefault(row["query_id"], one)["documents"].append(row["document"])
    write(list(lists.values()), folder / "in.parquet")
    return ["in.parquet", "--layout", "lists"]


def run_of(rows: list[dict[str, Any]], folder: Path) -> list[object]:
    for name, key in (("query", "query_id"), ("document", "doc_id")):
        texts = {row[key]: row[name] for row in rows}
        lines = [{"_id": each, "text": text} for each, text in texts.items()]
        write_jsonl(folder / f"{name}.jsonl", lines)
    write_lines(
        folder / "in.trec", [f"{row['query_id']} Q0 {row['doc_id']} 1 0.5 bm25" for row in rows]
    )
    return ["in.trec", "--layout", "run", "--queries", "query.jsonl", "--corpus", "document.jsonl"]


def jsonl_of(rows: list[dict[str, Any]], folder: Path) -> list[object]:
    return [write_jsonl(folder / "in.jsonl", rows).name]


@pytest.mark.parametrize("make", [lists_of, run_of, jsonl_of])
def test_an_input_to_be_prepared_is_estimated_as_the_run_then_counts_it(
    make: Callable[[list[dict[str, Any]], Path], list[object]], tmp_path: Path
) -> None:
    source, *options = make(pairs(6, 5), tmp_path)
    options += ["--model", DEMO, "--max-length", 12]
    before = everything_under(tmp_path)
    found = estimated(source, *options, "--no-calibrate", folder=tmp_path)
    assert everything_under(tmp_path) == before
    run = called("run", source, "out", *options, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    manifest = json.loads((tmp_path / "_rankmill" / "out" / "manifest.json").read_bytes())
    counted = [found["n_rows"], found["n_query_groups"], found["tokens"]["n_tokens"]]
    assert counted == [manifest[name] for name in ("n_rows", "n_query_groups", "n_tokens")]


def test_an_empty_input_comes_to_nothing(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = write(pairs(1, 1), tmp_path / "in.parquet")
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    done = called("estimate", "in.parquet", "--model", "demo", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0 rows in 1 file" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["in.parquet", "--model", "/nowhere"], "no such model folder"),
        (["in.parquet", "--model", "null:x"], "null:x: give null or null:PAIRS"),
        (["in.parquet", "--query-col", "q"], "the columns there are: query_id, doc_id"),
        (["in.parquet", "--layout", "lists"], "looks like"),
        (["in.parquet", "--max-length", "1"], "--max-length 1 should"),
        (["in.parquet", "--sample", "0"], "--sample"),
        (["in.parquet", "--price-per-hour", "0"], "--price-per-hour 0: give a positive number"),
        (["in.parquet", "--no-calibrate", "--price-per-hour", "1"], "a cost needs a speed"),
        (["in.parquet", "--precision", "fp8"], "fp8 needs a Hopper GPU"),
        (["nothing.parquet"], "nothing.parquet: no such file"),
        (["in.parquet", "out"], "unexpected extra argument"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    tmp_path: Path, options: list[str], message: str
) -> None:
    write(pairs(2, 2), tmp_path / "in.parquet")
    done = called("estimate", "--model", "demo", *options, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert everything_under(tmp_path) == ["in.parquet"]
