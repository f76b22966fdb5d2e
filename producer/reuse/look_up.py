"""Looks up which of a job's rows an earlier job has scored: a join of hashes, out of core.

Only 128-bit hashes and row numbers go through the database; texts pass by once, to be hashed. What
is found is kept by row, so that order, ids and shards of the earlier job do not matter.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from producer.reuse.earlier import Earlier
from producer.tables.database import Database, Feed
from producer.tables.workspace import Progress, Workspace
from rankmill import storage
from rankmill.contract.job import Columns, JobSpec, Plan
from rankmill.contract.reuse import KnownScores, pack
from rankmill.output.output import Output
from rankmill.tables.files import read_files
from rankmill.tables.pair_hash import PAIR_HASH_COLUMN, as_integers, pair_hashes
from rankmill.tables.titles import scored_documents

_BATCH_ROWS = 16 * 1024
_WRITTEN_ROWS = 2**20
_HASH = [("a", pa.int64()), ("b", pa.int64())]
_SCORES = pa.schema([*_HASH, ("score", pa.uint64())])
_ROWS = pa.schema([*_HASH, ("n", pa.int64())])


def look_up(
    spec: JobSpec,
    plan: Plan,
    earlier: Earlier,
    scratch: Path,
    progress: Progress,
    memory_limit: str = "1GB",
) -> KnownScores:
    """Write the scores that are known of the plan's rows to the output's `known_uri`.

    Args:
        scratch: a folder on a disk with room for the hashes of both jobs.
        progress, memory_limit: as of `prepare`.

    Raises:
        InputError: a file changed or is damaged.
        StorageRefused: the scratch folder's disk is full, say.
    """
    folder = scratch / "known"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with Database(folder, memory_limit) as database:
            workspace = Workspace(folder, database, progress)
            hashes = workspace.array("hashes", np.int64, 2 * plan.n_rows).reshape(-1, 2)
            found = _found(workspace, spec, plan, earlier, hashes)
            output = Output(spec.output_uri)
            storage.publish(output.known_uri, lambda file: _write(file, found, "<u8"))
            if spec.for_reuse:  # whoever scores has them to keep, and need not hash again
                storage.publish(output.known_hashes_uri, lambda file: _write(file, hashes, "<i8"))
    finally:
        shutil.rmtree(folder)
    return KnownScores(
        job_id=plan.job_id,
        source_uri=earlier.uri,
        source_job_id=earlier.manifest.job_id,
        scoring=earlier.scoring,
        n_known=int(np.count_nonzero(found)),
    )


def _found(
    workspace: Workspace, spec: JobSpec, plan: Plan, earlier: Earlier, hashes: np.ndarray
) -> np.ndarray:
    """The packed score of each row, or 0: uint64 (n_rows,), on disk.

    Args:
        hashes: int64 (n_rows, 2), which is filled.
    """
    scores = workspace.watch("reading known scores", earlier.tables())
    workspace.database.run(
        # Of a pair scored twice any score will do: they are the same, or the model cannot say.
        "create table known as select a, b, min(score) as score from feed group by a, b",
        Feed(_SCORES, _keyed_scores(scores)),
    )
    columns = plan.columns
    rows = read_files(plan.files, plan.schema, columns.texts, 0, _BATCH_ROWS, spec.damaged)
    feed = Feed(_ROWS, _keyed_rows(workspace.watch("looking up scores", rows), columns, hashes))
    found = workspace.array("scores", np.uint64, plan.n_rows)
    query = "select n, score from feed join known on feed.a = known.a and feed.b = known.b"
    for table in workspace.with_storage_errors(workspace.database.tables(query, feed)):
        found[table["n"].to_numpy()] = table["score"].to_numpy()
    return found


def _keyed_scores(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        keys = as_integers(table[PAIR_HASH_COLUMN].combine_chunks())
        packed = pack(
            table["logit"].to_numpy(),
            table["n_tokens"].to_numpy(),
            table["truncated"].to_numpy(),
        )
        yield pa.table([keys[:, 0], keys[:, 1], packed], _SCORES)


def _keyed_rows(
    tables: Iterable[pa.Table], columns: Columns, hashes: np.ndarray
) -> Iterator[pa.Table]:
    row = 0
    for table in tables:
        documents = scored_documents(table, columns)
        keys = as_integers(pair_hashes(table[columns.query], documents))
        numbers = np.arange(row, row + table.num_rows)
        hashes[row : row + table.num_rows] = keys
        yield pa.table([keys[:, 0], keys[:, 1], numbers], _ROWS)
        row += table.num_rows


def _write(file: IO[bytes], rows: np.ndarray, kind: str) -> None:
    for start in range(0, len(rows), _WRITTEN_ROWS):
        file.write(rows[start : start + _WRITTEN_ROWS].astype(kind).tobytes())
