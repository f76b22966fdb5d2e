"""An Iceberg table is read in one snapshot, or refused for a feature that it uses."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, StringType

from producer.inputs.source import read_pairs
from producer.jobs.check import check
from producer.lake.iceberg_files import normal_place
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.inputs import pairs
from tests.support.lake import put, rows_of
from tests.support.prepared import prepared, write_lines


def table(first: int, n_queries: int = 2, **columns: Any) -> pa.Table:
    rows = [row for row in pairs(first + n_queries, 5) if int(row["query_id"][1:]) >= first]
    return pa.Table.from_pylist([row | columns for row in rows])


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["doc_id"] for row in rows)


def create(folder: Path, rows: pa.Table, **options: Any) -> Table:
    catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/c.db", warehouse=f"file://{folder}/w")
    catalog.create_namespace_if_not_exists("n")
    return catalog.create_table("n.t", schema=rows.schema, **options)


@pytest.fixture
def lake(tmp_path: Path) -> Table:
    """Write ten rows after two overwrites, with a file that no snapshot has."""
    made = create(tmp_path, table(0))
    made.append(table(0))
    made.overwrite(table(2))
    made.overwrite(table(4))
    put(place_of(made), "data/00000-0-uncommitted.parquet")
    return made


def place_of(made: Table) -> Path:
    return Path(normal_place(made.location()))


def spec(place: object, **options: Any) -> JobSpec:
    return JobSpec(input_uri=str(place), output_uri="out", model_id="null", **options)


def test_only_what_the_snapshot_counts_is_read(lake: Table) -> None:
    place = place_of(lake)
    assert len(list(place.glob("data/*.parquet"))) == 4
    metadata = normal_place(lake.metadata_location)
    for name in (str(place), f"{place}/", metadata, f"file://{metadata}"):
        assert ids(rows_of(spec(name))) == ids(table(4).to_pylist())
    snapshot = lake.current_snapshot()
    assert snapshot is not None
    assert check(spec(place)).record.spec.input_version == str(snapshot.snapshot_id)


def test_a_snapshot_branch_or_tag_keeps_its_rows(lake: Table) -> None:
    snapshots = [snapshot.snapshot_id for snapshot in lake.snapshots()]
    with lake.manage_snapshots() as change:
        change.create_tag(snapshots[0], "first").create_branch(snapshots[0], "old")
    for version in ("first", "old", str(snapshots[0])):
        given = spec(place_of(lake), input_version=version)
        assert check(given).record.spec.input_version == str(snapshots[0])
        assert ids(rows_of(given)) == ids(table(0).to_pylist())
    with pytest.raises(InputError, match=r"no snapshot, branch or tag '17' \(--input-version\); i"):
        check(spec(place_of(lake), input_version="17"))


def test_a_plan_and_a_preparation_keep_their_snapshot(lake: Table, tmp_path: Path) -> None:
    given = check(spec(place_of(lake), cluster=True)).record.spec
    plan = check(spec(place_of(lake))).plan
    lake.overwrite(table(6))
    assert sorted(prepared(given, tmp_path)["doc_id"].to_pylist()) == ids(table(4).to_pylist())
    assert plan == check(given.model_copy(update={"cluster": False})).plan


def test_deleted_rows_are_not_scored(lake: Table) -> None:
    lake.delete("doc_id = 'd4-3'")
    left = [row for row in table(4).to_pylist() if row["doc_id"] != "d4-3"]
    assert ids(rows_of(spec(place_of(lake)))) == ids(left)


def test_columns_are_the_tables(tmp_path: Path) -> None:
    rows = table(0, n=pa.scalar(7, pa.int32()), dropped="x", day=dt.date(2026, 1, 2), code="007")
    rows = rows.set_column(rows.column_names.index("n"), "n", rows["n"].cast(pa.int32()))
    made = create(tmp_path, rows)
    made.append(rows)
    with made.update_spec() as change:
        change.add_identity("code").add_identity("day")
    with made.update_schema() as columns:
        columns.add_column("lang", StringType()).update_column("n", LongType())
        columns.delete_column("dropped")
    with made.update_schema() as columns:
        columns.add_column("dropped", StringType())
    later = table(2, n=2**40, day=dt.date(2026, 1, 3), code="008", lang="de", dropped="y")
    made.append(later)
    found = rows_of(spec(place_of(made)))
    assert len(found) == 20
    wanted = {
        False: {"n": 7, "day": dt.date(2026, 1, 2), "code": "007", "lang": None, "dropped": None},
        True: later.select(["n", "day", "code", "lang", "dropped"]).to_pylist()[0],
    }
    for row in found:
        is_later = row["query_id"] in ("q0002", "q0003")
        assert {name: row[name] for name in wanted[True]} == wanted[is_later]


def test_columns_that_came_after_the_last_row_are_there(lake: Table) -> None:
    with lake.update_schema() as columns:
        columns.add_column("lang", StringType())
    snapshot = lake.metadata.current_snapshot_id
    given = check(spec(place_of(lake))).record.spec
    assert given.input_version == f"{snapshot}@{lake.metadata.current_schema_id}"
    for version in (None, "main", given.input_version):
        assert {row["lang"] for row in rows_of(spec(place_of(lake), input_version=version))} == {
            None
        }
    with lake.update_schema() as columns:
        columns.add_column("more", StringType())
    assert "more" not in rows_of(given)[0]
    assert "lang" not in rows_of(spec(place_of(lake), input_version=str(snapshot)))[0]
    for wrong in (f"{snapshot}@99", "@1", "1@1"):
        with pytest.raises(InputError, match="has no snapshot, branch or tag"):
            check(spec(place_of(lake), input_version=wrong))


def test_a_renamed_column_is_read_from_older_files(lake: Table, tmp_path: Path) -> None:
    # After this, a column has the name that another one has in older files.
    with lake.update_schema() as columns:
        columns.rename_column("document", "text").rename_column("query", "question")
    with lake.update_schema() as columns:
        columns.rename_column("doc_id", "query").add_column("document", StringType())
    names = {"text": "document", "question": "query", "query": "doc_id"}
    named = {"query_col": "question", "document_col": "text", "doc_id_col": "query"}
    later = table(6).rename_columns(["query_id", "query", "question", "text"])
    lake.append(later.append_column("document", [["new"] * 10]))
    job = check(spec(place_of(lake), **named))
    assert not job.record.prepares
    wanted = [row | {"document": None} for row in renamed(table(4), names)]
    wanted += [row | {"document": "new"} for row in renamed(table(6), names)]
    for rows in (rows_of(spec(place_of(lake), **named)), prepared_rows(lake, tmp_path, **named)):
        found = [{name: row[name] for name in wanted[0]} for row in rows]
        assert sorted(found, key=str) == sorted(wanted, key=str)


def renamed(rows: pa.Table, names: dict[str, str]) -> list[dict[str, Any]]:
    new = {old: name for name, old in names.items()}
    return [{new.get(name, name): value for name, value in row.items()} for row in rows.to_pylist()]


def prepared_rows(made: Table, folder: Path, **options: Any) -> list[dict[str, Any]]:
    given = check(spec(place_of(made), cluster=True, **options)).record.spec
    rows: list[dict[str, Any]] = prepared(given, folder).to_pylist()
    return rows


def test_renamed_texts_count_when_shards_are_cut(lake: Table) -> None:
    before = read_pairs(spec(place_of(lake), keep_cols=["doc_id"])).group_bytes
    with lake.update_schema() as columns:
        columns.rename_column("document", "text").rename_column("query", "question")
    named = {"query_col": "question", "document_col": "text", "keep_cols": ["doc_id"]}
    after = read_pairs(spec(place_of(lake), **named))
    assert after.group_bytes.tolist() == before.tolist()


def test_a_field_renamed_inside_a_column_is_refused(tmp_path: Path) -> None:
    made = create(tmp_path, table(0, facts={"a": "x"}))
    made.append(table(0, facts={"a": "x"}))
    with made.update_schema() as columns:
        columns.rename_column("facts.a", "b")
    with pytest.raises(InputError, match=r"in column 'facts' of the .* a field was renamed after"):
        check(spec(place_of(made)))


def test_renamed_columns_of_files_without_ids_are_those_of_the_name_mapping(tmp_path: Path) -> None:
    made = create(tmp_path, table(0))
    pa.parquet.write_table(table(2), tmp_path / "added.parquet")
    made.add_files([f"file://{tmp_path}/added.parquet"])
    with made.update_schema() as columns:
        columns.rename_column("document", "text")
    found = rows_of(spec(place_of(made), document_col="text"))
    assert [row["text"] for row in found] == table(2)["document"].to_pylist()


def test_files_without_ids_are_read_by_the_name_mapping(tmp_path: Path) -> None:
    made = create(tmp_path, table(0))
    pa.parquet.write_table(table(2), tmp_path / "added.parquet")
    made.add_files([f"file://{tmp_path}/added.parquet"])
    assert ids(rows_of(spec(place_of(made)))) == ids(table(2).to_pylist())


def test_a_partition_column_that_files_lack_is_the_tables(tmp_path: Path) -> None:
    rows = table(0, day=dt.date(2026, 1, 2), n=7)
    made = create(tmp_path, rows)
    with made.update_spec() as change:
        change.add_identity("day").add_identity("n")
    made.append(rows)
    for file in place_of(made).rglob("*.parquet"):
        stored = pa.parquet.read_table(file, partitioning=None).drop_columns(["day", "n"])
        sink = pa.BufferOutputStream()
        pa.parquet.write_table(stored, sink)
        content = sink.getvalue().to_pybytes()
        footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        padding = bytes(file.stat().st_size - len(content))  # the manifest has the size
        file.write_bytes(content[:footer] + padding + content[footer:])
    for row in rows_of(spec(place_of(made))):
        assert (row["day"], row["n"]) == (dt.date(2026, 1, 2), 7)


class DeletesWriter(ManifestWriterV2):
    """Writes a manifest of deletes as Spark and Flink do; pyiceberg can only read one."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return super()._meta | {"content": "deletes"}


def add_deletes(made: Table, content: DataFileContent, deletes: Path) -> None:
    """Put a delete file into the current snapshot."""
    snapshot = made.current_snapshot()
    assert snapshot is not None
    folder = f"{made.location()}/metadata"
    file = DataFile.from_args(
        content=content,
        file_path=f"file://{deletes}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=deletes.stat().st_size,
        equality_ids=[2] if content is DataFileContent.EQUALITY_DELETES else None,
    )
    file.spec_id = 0
    kept = snapshot.manifests(made.io)
    with DeletesWriter(
        made.spec(),
        made.schema(),
        made.io.new_output(f"{folder}/d.avro"),
        snapshot.snapshot_id,
        "null",
    ) as writer:
        writer.add_entry(
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED, snapshot_id=snapshot.snapshot_id, data_file=file
            )
        )
    Path(normal_place(snapshot.manifest_list)).unlink()
    with write_manifest_list(
        2,
        made.io.new_output(snapshot.manifest_list),
        snapshot.snapshot_id,
        snapshot.parent_snapshot_id,
        snapshot.sequence_number,
        "null",
    ) as listed:
        listed.add_manifests([*kept, writer.to_manifest_file()])


def write_positions(made: Table, path: Path, *rows: int) -> Path:
    """Write a file that deletes rows of the table's data file, and of a file not in the table."""
    [task] = made.scan().plan_files()
    file = task.file.file_path
    positions = [(file, row) for row in rows] + [(f"{file}.other", 0)]
    names = ["file_path", "pos"]
    pa.parquet.write_table(
        pa.table(list(map(list, zip(*positions, strict=True))), names=names), path
    )
    return path


def test_rows_of_position_deletes_are_not_scored(lake: Table, tmp_path: Path) -> None:
    deletes = write_positions(lake, tmp_path / "deletes.parquet", 7, 0, 7)
    add_deletes(lake, DataFileContent.POSITION_DELETES, deletes)
    given = check(spec(place_of(lake))).record
    assert given.prepares
    found = prepared(given.spec, tmp_path).to_pylist()
    assert found == prepared(given.spec, tmp_path).to_pylist()
    left = [(at, row) for at, row in enumerate(table(4).to_pylist()) if at not in (0, 7)]
    assert [(row["_row"], row["doc_id"]) for row in found] == [
        (at, row["doc_id"]) for at, row in left
    ]
    previous = lake.snapshots()[-3].snapshot_id
    assert not check(spec(place_of(lake), input_version=str(previous))).record.prepares


def test_damaged_position_deletes_are_one_line(lake: Table, tmp_path: Path) -> None:
    deletes = write_positions(lake, tmp_path / "deletes.parquet", 10)
    add_deletes(lake, DataFileContent.POSITION_DELETES, deletes)
    with pytest.raises(InputError, match=r"has 10 rows, but the Ice.* deletes its row 10; its"):
        check(spec(place_of(lake)))
    pa.parquet.write_table(table(0), deletes)
    with pytest.raises(InputError, match=r"^[^\n]*deletes.parquet[^\n]*for deleted rows$"):
        check(spec(place_of(lake)))
    deletes.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"^[^\n]*deletes.parquet[^\n]*for deleted rows$"):
        check(spec(place_of(lake)))
    deletes.unlink()
    with pytest.raises(InputError, match=r"^[^\n]*deletes.parquet[^\n]*for deleted rows$"):
        check(spec(place_of(lake)))


def test_equality_deletes_are_refused(lake: Table, tmp_path: Path) -> None:
    deletes = write_positions(lake, tmp_path / "deletes.parquet", 1)
    add_deletes(lake, DataFileContent.EQUALITY_DELETES, deletes)
    with pytest.raises(InputError, match=r"uses equality deletes, which is not read; "):
        check(spec(place_of(lake)))


def test_a_corpus_may_be_a_table_in_one_snapshot(lake: Table, tmp_path: Path) -> None:
    rows = table(4)
    lines = (f"{row['query_id']} Q0 {row['doc_id']} 1 2 x" for row in rows.to_pylist())
    write_lines(tmp_path / "x.run", lines)
    queries = rows.group_by(["query_id", "query"]).aggregate([])
    pa.parquet.write_table(queries, tmp_path / "q.parquet")
    texts = {"queries": str(tmp_path / "q.parquet"), "corpus": str(place_of(lake))}
    given = check(
        JobSpec(input_uri=str(tmp_path / "x.run"), output_uri="out", layout="run", **texts)
    ).record.spec
    assert given.corpus_version == str(lake.metadata.current_snapshot_id)
    lake.overwrite(table(6))
    found = prepared(given, tmp_path)
    assert found["document"].to_pylist() == rows["document"].to_pylist()


def metadata_of(made: Table) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(normal_place(made.metadata_location)).read_text())
    return found


def test_another_format_version_is_refused(lake: Table) -> None:
    metadata = metadata_of(lake) | {"format-version": 3, "next-row-id": 0}
    Path(normal_place(lake.metadata_location)).write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="uses format version 3, which is not read"):
        check(spec(place_of(lake)))


def test_a_table_cannot_name_code_to_load(lake: Table) -> None:
    metadata = metadata_of(lake)
    metadata["properties"]["py-io-impl"] = "tests.no_such.Class"
    Path(normal_place(lake.metadata_location)).write_text(json.dumps(metadata))
    assert len(rows_of(spec(place_of(lake)))) == 10


def test_the_newest_metadata_file_is_never_guessed(lake: Table) -> None:
    newest = Path(normal_place(lake.metadata_location))
    other = newest.with_name(newest.name[:6] + "0" * 8 + newest.name[14:])
    shutil.copy(newest, other)
    with pytest.raises(InputError, match=r"are both its newest; give the one that its catalog"):
        check(spec(place_of(lake)))
    assert len(rows_of(spec(newest))) == 10
    shutil.copy(newest, newest.with_name("v9.metadata.json"))
    (newest.parent / "version-hint.text").write_text("9\n")
    assert len(rows_of(spec(place_of(lake)))) == 10


def test_a_file_that_is_gone_is_one_line(lake: Table) -> None:
    for file in place_of(lake).glob("data/*.parquet"):
        file.unlink()
    with pytest.raises(InputError, match=r"parquet is gone, which the Iceberg table .* at version"):
        check(spec(place_of(lake)))
    for manifest in place_of(lake).glob("metadata/snap-*"):
        manifest.unlink()
    with pytest.raises(InputError, match=r"snap-.*no such file, which the table's metadata name$"):
        check(spec(place_of(lake)))


@pytest.mark.parametrize("metadata", [b"", b"{", b"{}", b'{"format-version": 2}'])
def test_damaged_metadata_are_one_line(lake: Table, metadata: bytes) -> None:
    Path(normal_place(lake.metadata_location)).write_bytes(metadata)
    with pytest.raises(InputError, match=r"^the Iceberg table .* cannot be read: [^\n]+$"):
        check(spec(place_of(lake)))


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    made = create(tmp_path, table(0))
    with pytest.raises(InputError, match=r"^the Iceberg table .* has no rows"):
        check(spec(place_of(made)))
