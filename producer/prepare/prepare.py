"""Prepares a job's input: the canonical pairs dataset in Parquet, made once, out of core."""

from __future__ import annotations

import shutil
from pathlib import Path

from producer.prepare.parts import write_parts
from producer.prepare.sources import open_dataset
from producer.tables.database import Database
from producer.tables.workspace import Progress, Workspace
from rankmill import storage
from rankmill.contract.job import Columns, InputFile, JobSpec
from rankmill.errors import InputError


def prepare(
    spec: JobSpec,
    files: tuple[InputFile, ...],
    target_uri: str,
    scratch: Path,
    progress: Progress,
    memory_limit: str = "1GB",
) -> Columns:
    """Write the pairs of `files`, as `find_inputs` found them, to `part-00000.parquet` and so on.

    The parts have query_id and doc_id where there are such, the query's and the document's text,
    the other input columns, REFUSAL_COLUMN and ORIGIN_COLUMNS. Queries come in the order in which
    they first appear, the rows of each in the order of the input. What was in the target before
    is removed.

    Args:
        target_uri: a folder, which no other process may write to meanwhile.
        scratch: a folder on a disk with room for the pairs, as `target_uri`.
        progress: is told now and then which step has come to how many rows.
        memory_limit: of DuckDB; as much again goes to what is read and written.

    Returns:
        Which column of the pairs plays which part.

    Raises:
        InputError: bad input, or a file has changed; nothing is left in the target.
        StorageRefused: the scratch folder's disk is full, say.
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
