"""Look up which of a job's rows an earlier job has scored, by a join of hashes out of core.

Only 128-bit hashes and row numbers go through the database; texts are read once, to be hashed.
Scores are kept by row number, so that order, ids and shards of the earlier job do not matter.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from producer.reuse.earlier import Earlier
from producer.tables.database import Database, Feed
from producer.tables.workspace import Progress, Workspace
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import Plan
from rankmill.contract.reuse import KnownScores, known_type, pack
from rankmill.output.output import Output
from rankmill.tables.files import read_files
from rankmill.tables.hashed_pairs import hashed_pairs
from rankmill.tables.pair_hash import PAIR_HASH_COLUMN, as_integers

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
    """Write the known scores of the plan's rows to the output's `known_uri`.

    Args:
        spec: the job.
        plan: its plan.
        earlier: the output with the scores.
        scratch: a folder on a disk with room for the hashes of both jobs.
        progress: is called with a step and its number of rows, about once a second.
        memory_limit: DuckDB's.

    Raises:
        InputError: a file has changed or is damaged.
        StorageRefused: the scratch folder cannot be written, such as a full disk.
    """
    folder = scratch / "known"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with Database(folder, memory_limit) as database:
            workspace = Workspace(folder, database, progress)
            hashes = workspace.array("hashes", np.int64, 2 * plan.n_rows).reshape(-1, 2)
            known = _known_scores(workspace, spec, plan, earlier, hashes)
            output = Output(spec.output_uri)
            storage.publish(output.known_uri, lambda file: _write(file, known))
            if spec.for_reuse:  # workers keep them, and need not hash again
                storage.publish(output.known_hashes_uri, lambda file: _write(file, hashes))
    finally:
        shutil.rmtree(folder)
    return KnownScores(
        job_id=plan.job_id,
        source_uri=earlier.uri,
        source_job_id=earlier.manifest.job_id,
        scoring=earlier.scoring,
        n_known=int(np.count_nonzero(known["score"])),
    )


def _known_scores(
    workspace: Workspace, spec: JobSpec, plan: Plan, earlier: Earlier, hashes: np.ndarray
) -> np.ndarray:
    """Return the record of each row, with score 0 if it is unknown: (n_rows,), on disk.

    It fills `hashes`, int64 (n_rows, 2), with the hash of each row.
    """
    columns, has_passages = plan.columns, spec.has_passages
    record = known_type(has_passages=has_passages)
    names = record.names or ()
    schema = pa.schema([*_SCORES, *((name, pa.int32()) for name in names[1:])])
    taken = ", ".join(names)
    least = "min(score) as score"
    if has_passages:  # all of them from one row
        least = f"unnest(min({{{', '.join(f'{name}: {name}' for name in names)}}}))"

    def keyed_scores() -> Iterator[pa.Table]:
        for table in workspace.watch("reading known scores", earlier.tables()):
            keys = as_integers(table[PAIR_HASH_COLUMN].combine_chunks())
            values = (table[name].to_numpy() for name in ("logit", "n_tokens", "truncated"))
            more = [table[name] for name in names[1:]]
            yield pa.table([keys[:, 0], keys[:, 1], pack(*values), *more], schema)

    def keyed_rows() -> Iterator[pa.Table]:
        rows = read_files(plan.files, plan.schema, columns.texts, 0, _BATCH_ROWS, spec.damaged)
        row = 0
        for table in workspace.watch("looking up scores", rows):
            keys = as_integers(hashed_pairs(table, columns, has_passages=has_passages))
            numbers = np.arange(row, row + table.num_rows)
            hashes[row : row + table.num_rows] = keys
            yield pa.table([keys[:, 0], keys[:, 1], numbers], _ROWS)
            row += table.num_rows

    workspace.database.run(
        # Any score of a pair scored twice will do: they are equal if the model is deterministic.
        f"create table known as select a, b, {least} from feed group by a, b",
        Feed(schema, keyed_scores()),
    )
    feed = Feed(_ROWS, keyed_rows())
    known = workspace.array("scores", record, plan.n_rows)
    query = f"select n, {taken} from feed join known on feed.a = known.a and feed.b = known.b"
    for table in workspace.with_storage_errors(workspace.database.tables(query, feed)):
        rows = table["n"].to_numpy()
        for name in names:
            known[name][rows] = table[name].to_numpy()
    return known


def _write(file: IO[bytes], rows: np.ndarray) -> None:
    for start in range(0, len(rows), _WRITTEN_ROWS):
        file.write(rows[start : start + _WRITTEN_ROWS].tobytes())
