"""Long documents through real workers: scores, spans and counts of their passages."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import polars
import pytest
import torch

from rankmill.settings import CHECKOUT
from tests.support.command import called
from tests.support.inputs import pairs, write

IN_FP32 = {"dtype": torch.float32}
DEMO = CHECKOUT / "models" / "demo-reranker"


def test_a_run_scores_documents_by_their_best_passage(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    rows = pairs(6, 5)
    for at, row in enumerate(rows):
        row["document"] = f"{row['document']}. Größe 日本 {at}! " * (1 + 3 * (at % 5))
    write(rows, tmp_path / "in.parquet")
    options = ("--model", "demo", "--long-docs", "max-passage", "--max-length", 48)
    options += ("--precision", "fp32", "--keep-cols", "doc_id,query,document")
    run = called("run", "in.parquet", "out", *options, "--shard-pairs", 7, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    found = polars.read_parquet(tmp_path / "out" / "*.parquet")
    assert len(found) == len(rows) and found["n_passages"].max() > 2
    assert not found["truncated"].any()
    best = found["document"].str.slice(
        found["best_passage_start"], found["best_passage_end"] - found["best_passage_start"]
    )
    texts = list(zip(found["query"], best, strict=True))
    reference = CrossEncoder(str(DEMO), device="cpu", max_length=48, model_kwargs=IN_FP32)
    assert found["score"].to_list() == pytest.approx(reference.predict(texts), abs=1e-5)
    plain = reference.predict(list(zip(found["query"], found["document"], strict=True)))
    assert all(found["score"] >= plain - 0.5) and any(abs(found["score"] - plain) > 1e-4)
    sql = """
        select substring(document, best_passage_start + 1, best_passage_end - best_passage_start)
        from read_parquet($1) order by doc_id
    """
    by_duckdb = duckdb.execute(sql, [str(tmp_path / "out" / "*.parquet")]).fetchall()
    order = found["doc_id"].arg_sort()
    assert [text for (text,) in by_duckdb] == [best[at] for at in order]
    done = called("estimate", "in.parquet", *options, "--no-calibrate", "--json", folder=tmp_path)
    tokens = json.loads(done.stdout)["tokens"]
    assert tokens["n_tokens"] == found["n_tokens"].sum()
    assert tokens["n_passages"] == found["n_passages"].sum()
    assert tokens["truncated_share"] == 0
