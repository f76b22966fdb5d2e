"""Find an earlier job's output, check that it is finished and whole, and read its scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from producer.inputs.source import read_source
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import Columns, InputFile
from rankmill.contract.results import Manifest, Scoring
from rankmill.contract.reuse import fingerprint, text_difference
from rankmill.errors import InputError, StorageRefused
from rankmill.output.output import Output
from rankmill.output.uris import part_name
from rankmill.tables import parquet
from rankmill.tables.hashed_pairs import hashed_pairs
from rankmill.tables.pair_hash import PAIR_HASH_COLUMN, saved_schema

LATEST = "latest"
_POINTER = "latest.json"
# The pointer may be so many folders above an output, such as year, month, day, hour and run.
_MAX_DEPTH = 6
_BATCH_ROWS = 16 * 1024


def find_earlier(spec: JobSpec) -> tuple[JobSpec, str | None]:
    """Return the spec with the earlier output's URI, and why nothing can be reused, or None.

    For `latest`, such a reason is not an error, since a schedule's first job has no earlier one.
    Nor is it one that the earlier job cut its texts in another way.

    Raises:
        InputError: the named output is not a finished job's, or its scores are damaged or cannot
            be matched with pairs.
    """
    if spec.reuse_from is None:
        return spec, None
    try:
        uri = _resolved(spec, spec.reuse_from)
        if storage.lies_in(spec.output_uri, uri):
            raise InputError(f"--reuse-from {uri}: that is the output itself")
        earlier = Earlier.open(uri)
    except (InputError, StorageRefused) as error:
        if spec.reuse_from != LATEST:
            raise
        return spec, str(error)
    refused = text_difference(earlier.manifest.spec, spec)
    return spec.model_copy(update={"reuse_from": uri}), refused


def _resolved(spec: JobSpec, wanted: str) -> str:
    """Return the URI of the output that `--reuse-from` names."""
    if wanted != LATEST:
        named = storage.absolute(wanted)
        return _pointed(named) or named
    folder = spec.output_uri.rstrip("/")
    for _ in range(_MAX_DEPTH):
        folder = folder.rpartition("/")[0]
        if not folder or folder.endswith("/"):  # nothing is above a bucket
            break
        try:
            pointed = _pointed(folder)
        except StorageRefused:  # a folder so far above may not be read
            break
        if pointed is not None:
            return pointed
    raise InputError(f"there is no earlier success: no {_POINTER} is above {spec.output_uri}")


def _pointed(folder: str) -> str | None:
    """Return the output that a folder's latest.json names, or None if there is no such file."""
    place = storage.child(folder, _POINTER)
    content = storage.read_bytes(place)
    if content is None:
        return None
    try:
        return storage.absolute(str(json.loads(content)["output_uri"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place}: no JSON with an output_uri") from error


@dataclass(frozen=True)
class Earlier:
    """An earlier job's output whose scores can be used again.

    Attributes:
        uri: the output.
        manifest: its manifest.
        scoring: how its rows were scored; of several ways, the one of most rows.
        files: the files with rows that were scored so.
        texts: the parts' columns with query, document and title; None if hashes were kept.
    """

    uri: str
    manifest: Manifest
    scoring: Scoring
    files: tuple[InputFile, ...]
    texts: Columns | None

    @classmethod
    def open(cls, uri: str) -> Earlier:
        """Return the scores of a finished job's output.

        Raises:
            InputError: as `find_earlier`.
        """
        output = Output(uri)
        record = output.read_job()
        if record is None:
            raise InputError(f"--reuse-from {output.no_job()}")
        manifest = output.read_manifest()
        if manifest is None or not output.is_success():
            state = output.state()
            failure = output.read_failure()
            why = f" ({failure.message})" if failure else ""
            raise InputError(
                f"--reuse-from {uri}: its job is {state}{why}; only a success is reused: rankmill "
                f"resume {uri} first"
            )
        texts = None if record.spec.for_reuse else _kept_texts(output)
        source = read_source([uri if texts else output.scores_uri])
        n_rows = manifest.n_written if texts else manifest.n_scored
        there = {_name(file) for file in source.files}
        missing = [part.name for part in manifest.parts if part.name not in there]
        if missing or source.n_rows != n_rows:
            folder = source.files[0].uri.rpartition("/")[0]
            what = (
                f"{missing[0]} is missing in {folder}"
                if missing
                else f"{folder} has {source.n_rows:,} rows, not {n_rows:,}"
            )
            raise InputError(f"--reuse-from {uri}: damaged: {what}; run without it")
        scoring, names = _most_common(output, manifest)
        files = tuple(file for file in source.files if _name(file) in names)
        return cls(uri, manifest, scoring, files, texts)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the scores by hash in `saved_schema`; a pair may occur several times."""
        has_passages = self.manifest.spec.has_passages
        texts = [PAIR_HASH_COLUMN] if self.texts is None else [*self.texts.texts]
        names = [*texts, *saved_schema(has_passages=has_passages).names[1:]]
        for file in self.files:
            for table in parquet.read_rows(file.stat, names, 0, _BATCH_ROWS):
                if self.texts is not None:
                    hashes = hashed_pairs(table, self.texts, has_passages=has_passages)
                    table = table.drop_columns(texts).add_column(0, PAIR_HASH_COLUMN, hashes)
                yield table


def _kept_texts(output: Output) -> Columns:
    """Return the names in the parts of an output's texts, from which hashes can be made."""
    plan = output.read_plan()
    columns = plan.columns if plan else None
    if columns is None or columns.candidates is not None or not {*columns.texts} <= {*columns.kept}:
        raise InputError(
            f"--reuse-from {output.uri}: its job kept neither hashes nor all texts of its pairs; "
            "run it again with --for-reuse"
        )
    parts = ("query", "document", "title", "prompt")
    names = {part: columns.kept.get(getattr(columns, part)) for part in parts}
    return columns.model_copy(update=names)


def _most_common(output: Output, manifest: Manifest) -> tuple[Scoring, set[str]]:
    """Return the way in which most rows were scored, and the names of the parts with them."""
    if len({fingerprint(scoring) for scoring in manifest.scoring}) == 1:
        return manifest.scoring[0], {part.name for part in manifest.parts}
    n_rows: Counter[tuple[object, ...]] = Counter()
    scorings: dict[tuple[object, ...], Scoring] = {}
    names: dict[tuple[object, ...], set[str]] = {}
    for report in output.reports(manifest.job_id):
        key = fingerprint(report.scoring)
        n_rows[key] += report.n_scored
        scorings.setdefault(key, report.scoring)
        names.setdefault(key, set()).add(part_name(report.shard_index))
    if not n_rows:
        raise InputError(f"--reuse-from {output.uri}: damaged: it has no shard reports")
    [(key, _)] = n_rows.most_common(1)
    return scorings[key], names[key]


def _name(file: InputFile) -> str:
    return file.uri.rpartition("/")[2]
