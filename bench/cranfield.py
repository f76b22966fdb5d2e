"""Cranfield end to end: BM25 candidates, a `run` job over them, and its evaluation.

    python -m bench.cranfield --data FOLDER [--model MODEL]

FOLDER holds corpus.parquet (doc_id, title, text), queries.parquet (query_id, text) and qrels.trec.
It runs twice, from disk to disk and from S3 to S3; the parts must be the same bytes. The figures of
`rankmill eval` for both sides must be those of ir-measures for the two TREC runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ir_measures
import pyarrow.parquet as pq
from ir_measures import RR, R, ScoredDoc, nDCG

from bench.s3_server import s3_bucket
from examples.package_search import bm25_candidates
from rankmill import storage
from rankmill.output.output import Output

_QUERIES, _CORPUS, _QRELS, _RUN = "queries.parquet", "corpus.parquet", "qrels.trec", "bm25.trec"
_N_CANDIDATES = 100
_MEASURES = [nDCG @ 10, RR @ 10, R @ _N_CANDIDATES]


def main() -> None:
    """Rerank on disk and on S3, and check both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, s3_bucket() as bucket:
        for name in (_QUERIES, _CORPUS, _QRELS):
            shutil.copy(options.data / name, work)
        write_bm25_run(options.data, Path(work, _RUN))
        for name in (_QUERIES, _CORPUS, _QRELS, _RUN):
            content = storage.read_bytes(storage.child(work, name)) or b""
            storage.write_bytes(f"s3://{bucket}/{name}", content)
        on_disk, on_s3 = (reranked(place, options.model) for place in (work, f"s3://{bucket}"))
        check(work, on_disk)
    assert on_disk == on_s3, "the parts on disk and on S3 differ"
    print(f"{len(on_disk.parts)} parts are the same bytes on S3 and on disk")


@dataclass(frozen=True)
class Reranked:
    """The result of a run over the files in one place.

    Attributes:
        parts: the SHA-256 of each part.
        run: the TREC run file.
        comparisons: of `rankmill eval --json`.
    """

    parts: list[str]
    run: bytes
    comparisons: list[dict[str, Any]]


def reranked(place: str, model: str) -> Reranked:
    """Run and evaluate a job over the files in a folder or a bucket."""
    run, queries, corpus, qrels = (
        storage.child(place, name) for name in (_RUN, _QUERIES, _CORPUS, _QRELS)
    )
    output = storage.child(place, "out", "cranfield")
    texts = ("--layout", "run", "--queries", queries, "--corpus", corpus)
    rankmill("run", run, output, *texts, "--model", model, "--trec-run")
    rankmill("eval", output, "--qrels", qrels)
    evaluation = json.loads(rankmill("eval", output, "--qrels", qrels, "--json"))
    manifest = Output(output).read_manifest()
    assert manifest is not None
    return Reranked(
        [part.sha256 for part in manifest.parts],
        storage.read_bytes(Output(output).trec_run_uri) or b"",
        evaluation["comparisons"],
    )


def write_bm25_run(folder: Path, target: Path) -> Path:
    """Write each query's best documents as a TREC run; empty documents are left out."""
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
    """Run a command and return its stdout; its progress goes to stderr."""
    command = [sys.executable, "-m", "producer.cli", *map(str, arguments)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    if "--json" not in arguments:
        print(printed)
    return printed


def check(work: str, result: Reranked) -> None:
    """Compare each side's means with those of ir-measures on that side's TREC run.

    The runs' ranks are compared, not their scores, since evaluators order equal scores by id.
    """
    runs = {"before": Path(work, _RUN).read_text(), "after": result.run.decode()}
    judgments = list(ir_measures.read_trec_qrels(str(Path(work, _QRELS))))
    for side, run in runs.items():
        fields = [line.split() for line in run.splitlines()]
        ranked = [ScoredDoc(query, doc, -int(rank)) for query, _, doc, rank, *_ in fields]
        wanted = ir_measures.calc_aggregate(_MEASURES, judgments, ranked)
        measured = {each["measure"]: each[side] for each in result.comparisons}
        for measure, value in wanted.items():
            assert abs(measured[str(measure)] - value) < 1e-9, (side, measure, value, measured)
    print("both sides have the figures of ir-measures for their TREC runs")


if __name__ == "__main__":
    main()
