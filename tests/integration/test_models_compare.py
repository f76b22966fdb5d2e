"""`rankmill models compare` as a user types it, next to figures that are worked out here."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import ir_measures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ir_measures import nDCG
from safetensors.torch import load_file, save_file

from producer.inspection.comparison import compare_models
from producer.inspection.judged_sample import judged_sample
from producer.quality.qrels import Qrels, read_qrels
from rankmill.contract.job import JobOptions
from rankmill.errors import InputError
from rankmill.settings import CHECKOUT
from rankmill.tables.titles import lengths_of_titles, with_titles
from tests.support.command import called
from tests.support.inputs import pairs, write
from worker.engine.scorer import PairWindow, Scorer

DEMO = CHECKOUT / "models" / "demo-reranker"
PACKAGES = CHECKOUT / "examples" / "packages.parquet"
QRELS = PACKAGES.with_suffix(".qrels")
N_QUERIES, N_ALL = 6, 240


@pytest.fixture(scope="module")
def upside_down(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that orders as the demo model does, from the other end."""
    folder = tmp_path_factory.mktemp("models") / "upside-down"
    shutil.copytree(DEMO, folder)
    weights = load_file(folder / "model.safetensors")
    turned = {k: -value if k.startswith("classifier.") else value for k, value in weights.items()}
    save_file(turned, folder / "model.safetensors", {"format": "pt"})
    return folder


def ndcg(rows: list[dict[str, Any]], logits: list[float], judged: Qrels) -> float:
    """Return the mean nDCG@10; of equal logits the earlier row is first."""
    run: dict[str, dict[str, float]] = {}
    order = sorted(range(len(rows)), key=lambda at: -logits[at])
    for place, at in enumerate(order):
        run.setdefault(rows[at]["query_id"], {})[rows[at]["doc_id"]] = -float(place)
    found: float = ir_measures.calc_aggregate([nDCG @ 10], judged, run)[nDCG @ 10]
    return found


def test_each_model_has_its_own_quality_speed_truncation_and_cost(
    upside_down: Path, tmp_path: Path
) -> None:
    done = called(
        *("models", "compare", PACKAGES, "--models", f"demo, {upside_down}", "--qrels", QRELS),
        *("--sample", N_QUERIES, "--price-per-hour", 2.5, "--max-length", 80, "--json"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    found = json.loads(done.stdout)

    table = pq.read_table(PACKAGES)
    queries = list(dict.fromkeys(table["query_id"].to_pylist()))
    chosen = [queries[at * N_ALL // N_QUERIES] for at in range(N_QUERIES)]
    rows = [row for row in table.to_pylist() if row["query_id"] in chosen]
    judged = {query: docs for query, docs in read_qrels(str(QRELS)).items() if query in chosen}
    window = PairWindow([row["query"] for row in rows], [row["document"] for row in rows])
    (scores,) = Scorer.load(DEMO, max_length=80).score([window])
    logits = scores.logits.tolist()

    counts = [found[name] for name in ("n_judged", "n_found", "n_queries", "n_pairs")]
    assert counts == [N_ALL, N_ALL, N_QUERIES, len(rows)]
    assert found["ndcg_before"] == pytest.approx(ndcg(rows, [0.0] * len(rows), judged))
    first, other = found["models"]
    assert first["ndcg"] == pytest.approx(ndcg(rows, logits, judged))
    assert other["ndcg"] == pytest.approx(ndcg(rows, [-logit for logit in logits], judged))
    assert first["change"] is None
    change = other["change"]
    assert (change["before"], change["after"]) == (first["ndcg"], other["ndcg"])
    assert change["n_worse"] > change["n_better"]
    for each in (first, other):
        assert each["truncated_share"] == pytest.approx(scores.truncated.mean())
        price = 2.5 / 3600 * 1e6 / each["pairs_per_s"]
        assert each["price_of_million"] == pytest.approx(price)


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (["demo"], {}, "--models: give two or more"),
        (["demo", "./twin", "../twin-folder/twin"], {}, "twin-folder/twin is there twice"),
        (["demo", "null"], {}, "null scores nothing"),
        (["demo", "./nowhere"], {}, "nowhere: no such model folder"),
        (["demo", "./twin"], {"top_k": 3}, "--top-k: a comparison does not take it"),
        (["demo", "./twin"], {"max_length": 999}, "--max-length 999: demo takes at most 384"),
        (["demo", "./twin"], {}, "has none of the 1 queries that have relevant documents"),
        (["demo", "./twin"], {"doc_id_col": "document"}, "has none of the 1 queries"),
    ],
)
def test_bad_use_is_refused_before_anything_is_scored(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    models: list[str],
    options: dict[str, Any],
    message: str,
) -> None:
    folder = tmp_path / "twin-folder"
    shutil.copytree(DEMO, folder / "twin")
    monkeypatch.chdir(folder)
    write(pairs(2, 2), folder / "in.parquet")
    (folder / "other.qrels").write_text("elsewhere 0 d1 1\n")
    monkeypatch.setenv("RANKMILL_WEBHOOK_URL", "http://127.0.0.1:9/of-other-jobs")
    monkeypatch.setenv("RANKMILL_WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef")
    with pytest.raises(InputError, match=message):
        compare_models(JobOptions(input_uri="in.parquet", **options), models, "other.qrels")
    assert os.environ["RANKMILL_WEBHOOK_URL"] == "http://127.0.0.1:9/of-other-jobs"


def test_bad_use_of_the_command_is_one_line_and_exit_2(tmp_path: Path) -> None:
    write(pairs(2, 2), tmp_path / "in.parquet")
    options = ("--models", "demo,demo", "--qrels", QRELS, "--price-per-hour", "-1")
    done = called("models", "compare", "in.parquet", *options, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rankmill: --price-per-hour -1: give a positive number\n"


def test_a_sample_has_all_rows_of_its_queries_together_in_their_order(tmp_path: Path) -> None:
    rows = [{**row, "score": float(n)} for n, row in enumerate(pairs(6, 4))]
    scattered: list[dict[str, Any]] = rows[::2] + rows[1::2]
    scattered[3]["document"] = None
    pq.write_table(pa.Table.from_pylist(scattered), tmp_path / "in.parquet")
    names = list(dict.fromkeys(row["query_id"] for row in scattered))
    judged = {name: {"d": 1} for name in [*names[:5], "not here"]}
    options = JobOptions(input_uri=str(tmp_path / "in.parquet"), cluster=True)
    (tmp_path / "scratch").mkdir()
    sample = judged_sample(options, judged, 2, tmp_path / "scratch")
    chosen = [names[0], names[2]]
    assert (list(sample.judged), sample.n_found) == (chosen, 5)
    expected = [row for name in chosen for row in scattered if row["query_id"] == name]
    wanted = ("query_id", "doc_id", "query", "document", "score")
    written = pq.read_table(tmp_path / "scratch" / "sample.parquet").to_pylist()
    assert written == [{name: row[name] for name in wanted} for row in expected]


def test_a_sample_of_a_run_has_its_titles_apart_where_passages_repeat_them(tmp_path: Path) -> None:
    corpus = [
        {"_id": "d1", "title": " Title ", "text": " first"},
        {"_id": "d2", "title": "", "text": "second"},
        {"_id": "d3", "title": "Alone", "text": ""},
    ]
    (tmp_path / "a.run").write_text("".join(f"q1 Q0 d{n} {n} {9 - n} x\n" for n in (1, 2, 3)))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "one"}\n')
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)) + "\n")
    places = {name: str(tmp_path / f"{name}.jsonl") for name in ("queries", "corpus")}
    options = JobOptions(
        input_uri=str(tmp_path / "a.run"), layout="run", long_docs="max-passage", **places
    )
    (tmp_path / "scratch").mkdir()
    sample = judged_sample(options, {"q1": {"d1": 1}}, 1, tmp_path / "scratch")
    table = pq.read_table(tmp_path / "scratch" / "sample.parquet")
    title, text = (table[sample.options[name]] for name in ("title_col", "document_col"))
    assert with_titles(title, text).to_pylist() == ["Title   first", "second", "Alone"]
    assert lengths_of_titles(title).to_pylist() == [5, 0, 5]
