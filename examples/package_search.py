"""Package search as a retrieval task: a package's short description must find its own long one.

The source is a table of Debian packages (package, source, section, short_description,
long_description). Sources are split, not packages, so that a model trained on one side has
never seen a sibling of a package on the other. Run as a script, it writes the demo's input, and
examples/packages.qrels with the answer to each query:

    python examples/package_search.py PACKAGES.parquet examples/packages.parquet
"""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

N_HELD_OUT_SOURCES = 1500
N_HELD_OUT_QUERIES = 1500
N_CANDIDATES = 50
N_DEMO_QUERIES = 240
MIN_DOCUMENT_CHARS = 80
SPLIT_SEED = 0

LICENCE_REMARK = (
    "A small sample of package descriptions from the Debian archive. Each description is under "
    "the free licence of its own package (see the package's debian/copyright); candidates are "
    "BM25's top 50. Made by examples/package_search.py."
)

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with".split()
)
_WORD = re.compile(r"[a-z0-9][a-z0-9+.#-]*[a-z0-9+#]|[a-z0-9]")


@dataclass(frozen=True)
class PackageSearch:
    """Queries and documents side by side: `queries[i]` is answered by `documents[i]`.

    A model is chosen on `dev` and measured on `held_out`.
    """

    packages: list[str]
    queries: list[str]
    documents: list[str]
    train: list[int]
    dev: list[int]
    held_out: list[int]


def load(path: Path) -> PackageSearch:
    """Read the packages, drop short and repeated descriptions, and split by source."""
    rows = []
    seen: set[str] = set()
    for row in pq.read_table(path).to_pylist():
        document = " ".join(row["long_description"].split())
        if len(document) < MIN_DOCUMENT_CHARS or document in seen:
            continue
        seen.add(document)
        rows.append((row["source"], row["package"], row["short_description"], document))
    rng = random.Random(SPLIT_SEED)
    sources = sorted({row[0] for row in rows})
    rng.shuffle(sources)
    held_out_sources = set(sources[:N_HELD_OUT_SOURCES])
    held_out = [i for i, row in enumerate(rows) if row[0] in held_out_sources]
    train = [i for i, row in enumerate(rows) if row[0] not in held_out_sources]
    rng.shuffle(held_out)
    rng.shuffle(train)
    return PackageSearch(
        packages=[row[1] for row in rows],
        queries=[row[2] for row in rows],
        documents=[row[3] for row in rows],
        train=train,
        dev=held_out[N_HELD_OUT_QUERIES:],
        held_out=held_out[:N_HELD_OUT_QUERIES],
    )


def words(text: str) -> list[str]:
    """Lower-cased words without stop words, as BM25 sees them."""
    return [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


def bm25_candidates(
    documents: list[str], queries: list[str], k: int = N_CANDIDATES
) -> tuple[np.ndarray, np.ndarray]:
    """BM25's best `k` documents per query: row numbers and scores, both (n_queries, k)."""
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index([words(document) for document in documents], show_progress=False)
    tokens = [sorted(set(words(query))) for query in queries]
    found, scores = index.retrieve(tokens, k=k, show_progress=False)
    return np.asarray(found), np.asarray(scores)


def write_demo(search: PackageSearch, target: Path) -> pa.Table:
    """Write the first held-out queries with their BM25 candidates, one row a candidate.

    The answer to each query goes to a file next to it, as TREC judgments, even if BM25 missed it.
    """
    chosen = search.held_out[:N_DEMO_QUERIES]
    found, scores = bm25_candidates(search.documents, [search.queries[i] for i in chosen])
    rows = [
        {
            "query_id": f"q{n:03d}",
            "doc_id": search.packages[j],
            "query": search.queries[i],
            "document": search.documents[j],
            "bm25": float(score),
            "is_answer": bool(i == j),
        }
        for n, i in enumerate(chosen)
        for j, score in zip(found[n].tolist(), scores[n].tolist(), strict=True)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"licence": LICENCE_REMARK})
    pq.write_table(table, target, compression="zstd", compression_level=19)
    judgments = (f"q{n:03d} 0 {search.packages[i]} 1\n" for n, i in enumerate(chosen))
    target.with_suffix(".qrels").write_text("".join(judgments))
    return table


def main(packages: str, target: str) -> None:
    """Write the demo's input and print its size."""
    table = write_demo(load(Path(packages)), Path(target))
    print(f"{target}: {table.num_rows} rows, {Path(target).stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
