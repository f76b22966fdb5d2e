"""Cranfield end to end: BM25 candidates, a `run` job over them, and its evaluation.

    python -m bench.cranfield --data FOLDER [--model MODEL] [--output FOLDER]

FOLDER holds corpus.parquet (doc_id, title, text), queries.parquet (query_id, text) and qrels.trec.
The result goes to `--output`, which may be on S3, else to a folder that is removed. What `rankmill
eval` says of both sides is compared with what ir-measures says of the two TREC runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ir_measures
import pyarrow.parquet as pq
from ir_measures import RR, R, ScoredDoc, nDCG

from examples.package_search import bm25_candidates
from rankmill import storage
from rankmill.output import Output

_N_CANDIDATES = 100
_MEASURES = [nDCG @ 10, RR @ 10, R @ _N_CANDIDATES]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--output")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        run = write_bm25_run(given.data, Path(work) / "bm25.trec")
        output = storage.child(given.output or work, "cranfield")
        queries, corpus = given.data / "queries.parquet", given.data / "corpus.parquet"
        options = ("--model", given.model, "--trec-run", "--overwrite")
        texts = ("--queries", queries, "--corpus", corpus)
        rankmill("run", run, output, "--layout", "run", *texts, *options)
        qrels = given.data / "qrels.trec"
        rankmill("eval", output, "--qrels", qrels)
        told = json.loads(rankmill("eval", output, "--qrels", qrels, "--json"))
        after = storage.read_bytes(Output(output).trec_run_uri) or b""
        runs = {"before": run.read_text(), "after": after.decode()}
        check(told["comparisons"], qrels, runs)


def write_bm25_run(folder: Path, target: Path) -> Path:
    """Each query's best documents as a TREC run; empty documents are nobody's candidates."""
    corpus = [
        row for row in pq.read_table(folder / "corpus.parquet").to_pylist() if row["text"].strip()
    ]
    queries = pq.read_table(folder / "queries.parquet").to_pylist()
    texts = [f"{row['title']} {row['text']}" for row in corpus]
    found, scores = bm25_candidates(texts, [row["text"] for row in queries], _N_CANDIDATES)
    lines = (
        f"{query['query_id']} Q0 {corpus[document]['doc_id']} {rank} {score:.9g} bm25\n"
        for query, documents, of_query in zip(queries, found, scores, strict=True)
        for rank, (document, score) in enumerate(zip(documents, of_query, strict=True), 1)
    )
    target.write_text("".join(lines))
    return target


def rankmill(*arguments: object) -> str:
    """What the command prints, which goes on to stdout; its progress goes to stderr."""
    command = [sys.executable, "-m", "producer.cli", *map(str, arguments)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    if "--json" not in arguments:
        print(said)
    return said


def check(comparisons: list[dict[str, Any]], qrels: Path, runs: dict[str, str]) -> None:
    """Compare each side's means with those of ir-measures itself on that side's TREC run.

    By the ranks in the run: by its scores, evaluators would put documents of equal ones in the
    order of their ids.

    Args:
        runs: side to TREC run.
    """
    judgments = list(ir_measures.read_trec_qrels(str(qrels)))
    for side, run in runs.items():
        fields = [line.split() for line in run.splitlines()]
        ranked = [ScoredDoc(query, doc, -int(rank)) for query, _, doc, rank, *_ in fields]
        wanted = ir_measures.calc_aggregate(_MEASURES, judgments, ranked)
        found = {each["measure"]: each[side] for each in comparisons}
        for measure, value in wanted.items():
            assert abs(found[str(measure)] - value) < 1e-9, (side, measure, value, found)
    print("both sides are what ir-measures says of their TREC runs")


if __name__ == "__main__":
    main()
