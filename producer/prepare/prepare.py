"""Prepare a job's input: write it once as the canonical pairs dataset, out of core."""

from __future__ import annotations

import shutil
from pathlib import Path

from producer.prepare.open_dataset import open_dataset
from producer.prepare.parts import write_parts
from producer.tables.database import Database
from producer.tables.workspace import Progress, Workspace
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import Columns, InputFile
from rankmill.errors import InputError


def prepare(
    spec: JobSpec,
    files: tuple[InputFile, ...],
    target_uri: str,
    scratch: Path,
    progress: Progress,
    memory_limit: str = "1GB",
) -> Columns:
    """Write the pairs of an input to `part-00000.parquet` and so on.

    The parts have query_id and doc_id if the input has them, the texts, the input's other columns,
    REFUSAL_COLUMN and ORIGIN_COLUMNS. Queries are in the order in which they first appear, the
    rows of each in the order of the input. The target's earlier content is removed.

    Args:
        spec: the job.
        files: its files, as `find_inputs` returns them.
        target_uri: a folder that no other process writes to meanwhile.
        scratch: a folder on a disk with room for the pairs.
        progress: is called with a step and its number of rows, about once a second.
        memory_limit: DuckDB's; reading and writing take as much again.

    Returns:
        The role of each column of the pairs.

    Raises:
        InputError: the input is bad, or a file has changed; nothing is left in the target.
        StorageRefused: the scratch folder cannot be written, such as a full disk.
    """
    storage.remove_unfinished(target_uri)
    storage.remove(target_uri)
    folder = scratch / "prepare"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with Database(folder, memory_limit) as database, Database() as json_database:
            workspace = Workspace(folder, database, progress)
            dataset = open_dataset(spec, files, json_database)
            tables = workspace.with_storage_errors(dataset.tables(workspace))
            write_parts(target_uri, dataset.schema, workspace.watch("writing", tables))
            return dataset.columns
    except InputError:
        storage.remove(target_uri)
        raise
    finally:
        shutil.rmtree(folder)
