"""A Delta table is read at one version of its log, or refused for a feature that it uses."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from producer.inputs.source import read_pairs
from producer.jobs.check import check
from producer.prepare.job_inputs import find_inputs, needs_prepare
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import Plan
from rankmill.errors import InputError
from rankmill.tables.files import read_files
from tests.support.inputs import pairs
from tests.support.lake import delete, rewrite_log, rows_of, use_features
from tests.support.prepared import prepared, write_lines


def table(first: int, n_queries: int = 2, **columns: Any) -> pa.Table:
    rows = [row for row in pairs(first + n_queries, 5) if int(row["query_id"][1:]) >= first]
    return pa.Table.from_pylist([row | columns for row in rows])


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["doc_id"] for row in rows)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Write ten rows after two overwrites, whose files are still there."""
    for first in (0, 2, 4):
        write_deltalake(tmp_path / "t", table(first), mode="overwrite")
    (tmp_path / "t" / "part-00000-uncommitted.snappy.parquet").write_bytes(
        next((tmp_path / "t").glob("*.parquet")).read_bytes()
    )
    return tmp_path / "t"


def spec(place: Path, **options: Any) -> JobSpec:
    return JobSpec(input_uri=str(place), output_uri="out", model_id="null", **options)


def test_only_what_the_log_counts_is_read(place: Path) -> None:
    assert len(list(place.glob("*.parquet"))) == 4
    found = rows_of(spec(place))
    assert ids(found) == ids(table(4).to_pylist())
    for name in (f"{place}/", f"file://{place}"):
        assert check(spec(Path(place)).model_copy(update={"input_uri": name})).plan


@pytest.mark.parametrize(("version", "first"), [("0", 0), ("1", 2), ("2", 4), (None, 4)])
def test_a_version_never_changes(place: Path, version: str | None, first: int) -> None:
    job = check(spec(place, input_version=version))
    assert job.record.spec.input_version == (version or "2")
    assert ids(rows_of(spec(place, input_version=version))) == ids(table(first).to_pylist())


def test_a_time_is_a_version(place: Path) -> None:
    times = {each["version"]: each["timestamp"] for each in DeltaTable(place).history()}
    for milliseconds in times.values():
        for zone in (dt.UTC, dt.timezone(dt.timedelta(hours=2))):
            at = dt.datetime.fromtimestamp(milliseconds / 1000, zone).isoformat()
            named = check(spec(place, input_version=at)).record.spec.input_version
            assert named == str(max(v for v, each in times.items() if each <= milliseconds))


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3", "at --input-version 3 cannot be read: "),
        ("99999999999999999999999", "at --input-version 9+ cannot be read: "),
        ("yesterday", "neither a version of the Delta table .* nor a time with its zone, such as"),
        ("2026-11-27", "neither a version of the Delta table .* nor a time with its zone, such"),
        ("-1", "neither a version"),
        ("2020-01-01T00:00:00Z", "no version at --input-version .*, which is before its first"),
        ("9020-01-01T00:00:00Z", "no version at --input-version .*, which is yet to come"),
    ],
)
def test_an_unknown_version_is_refused(place: Path, version: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(spec(place, input_version=version))


def test_a_job_is_named_by_its_version(place: Path) -> None:
    first = check(spec(place)).record
    assert first.job_id == check(spec(place, input_version="2")).record.job_id
    write_deltalake(place, table(6), mode="append")
    assert first.job_id != check(spec(place)).record.job_id
    assert first.job_id == check(spec(place, input_version="2")).record.job_id


def test_deleted_rows_are_not_scored(place: Path) -> None:
    DeltaTable(place).delete("doc_id = 'd4-3'")
    assert ids(rows_of(spec(place))) == ids(
        [row for row in table(4).to_pylist() if row["doc_id"] != "d4-3"]
    )


def test_rows_that_must_be_prepared_are_those_of_the_version(place: Path, tmp_path: Path) -> None:
    given = spec(place, cluster=True, input_version="1")
    assert needs_prepare(given)
    assert sorted(prepared(given, tmp_path)["doc_id"].to_pylist()) == ids(table(2).to_pylist())
    assert len(find_inputs(spec(place, cluster=True))) == 1


@pytest.mark.parametrize("cluster", [False, True])
def test_columns_are_the_tables(tmp_path: Path, cluster: bool) -> None:
    day = dt.date(2026, 1, 2)
    at = dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC)
    keys = {"day": day, "at": at, "price": decimal.Decimal("1.50"), "new": True, "code": "007"}
    write_deltalake(tmp_path / "t", table(0, **keys), partition_by=list(keys))
    nothing = table(2, **dict.fromkeys(keys)).cast(table(0, **keys).schema)
    write_deltalake(tmp_path / "t", nothing, mode="append")
    more = table(4, **keys, lang="de", n=7)
    write_deltalake(tmp_path / "t", more, mode="append", schema_mode="merge")
    given = spec(tmp_path / "t", cluster=cluster)
    job = check(given)
    rows = prepared(job.record.spec, tmp_path).to_pylist() if cluster else rows_of(given)
    assert len(rows) == 30
    for row in rows:
        query = int(row["query_id"][1:])
        wanted = keys if query not in (2, 3) else dict.fromkeys(keys)
        assert {name: row[name] for name in keys} == wanted
        assert (row["lang"], row["n"]) == (("de", 7) if query > 3 else (None, None))


def test_a_plan_reads_its_version_whatever_comes_later(place: Path) -> None:
    plan = check(spec(place)).plan
    assert isinstance(plan, Plan)
    write_deltalake(place, table(6), mode="overwrite")
    read = read_files(plan.files, plan.schema, None, 0, 100, "fail")
    assert ids([row for each in read for row in each.to_pylist()]) == ids(table(4).to_pylist())


def test_a_vacuumed_file_is_one_line(place: Path) -> None:
    DeltaTable(place).vacuum(0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(InputError, match=r"parquet is gone, which the Delta table .* at version 0"):
        check(spec(place, input_version="0"))
    assert len(rows_of(spec(place))) == 10


def test_a_file_that_differs_from_the_log_is_refused(place: Path) -> None:
    [action] = pa.table(DeltaTable(place).get_add_actions())["path"].to_pylist()
    other = pa.BufferOutputStream()
    pa.parquet.write_table(table(0, 1), other)
    (place / action).write_bytes(other.getvalue())
    with pytest.raises(InputError, match=r"has .* bytes, not the .* of the Delta table"):
        check(spec(place))


@pytest.mark.parametrize("in_a_file", [False, True])
@pytest.mark.parametrize("name", ["t", "a b#ü[1]"])
def test_rows_of_deletion_vectors_are_not_scored(
    tmp_path: Path, name: str, in_a_file: bool
) -> None:
    place = tmp_path / "t"
    write_deltalake(place, table(0).append_column("lang", [["de x"] * 10]), partition_by=["lang"])
    delete(place, [3, 4, 9], in_a_file=in_a_file)
    write_deltalake(place, table(2).append_column("lang", [["de x"] * 10]), mode="append")
    place = place.rename(tmp_path / name)
    given = check(spec(place)).record
    assert given.prepares
    found = prepared(given.spec, tmp_path)
    assert found["doc_id"].to_pylist() == prepared(given.spec, tmp_path)["doc_id"].to_pylist()
    left = [row for at, row in enumerate(table(0).to_pylist()) if at not in (3, 4, 9)]
    assert ids(found.to_pylist()) == ids([*left, *table(2).to_pylist()])
    for row in found.to_pylist():
        stored = pa.parquet.read_table(row["_file"], partitioning=None).to_pylist()
        assert stored[row["_row"]]["doc_id"] == row["doc_id"]


def test_deletion_vectors_that_delete_nothing_change_nothing(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, table(0))
    rewrite_log(place, lambda entries: use_features(entries, "deletionVectors"))
    assert not check(spec(place)).record.prepares
    assert len(rows_of(spec(place))) == 10
    delete(place, list(range(10)))
    with pytest.raises(InputError, match=r"^the Delta table .* has no rows"):
        check(spec(place))


def test_a_deletion_vector_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, table(0))
    delete(place, [3], in_a_file=True)
    [vectors] = place.glob("*.bin")
    vectors.write_bytes(vectors.read_bytes()[:12])
    with pytest.raises(InputError, match=r"^the Delta table .* cannot be read: [^\n]+$"):
        check(spec(place))
    vectors.unlink()
    with pytest.raises(InputError, match=r"^the Delta table .* cannot be read: [^\n]+$"):
        check(spec(place))
    delete(place, [10])
    with pytest.raises(InputError, match=r"^the Delta table .* cannot be read: .* exceeds numRec"):
        check(spec(place))


def map_columns(place: Path, mode: str, **physical: str) -> None:
    """Turn on column mapping in a table, with other names for its columns."""

    def change(entries: dict[str, Any]) -> None:
        use_features(entries, "columnMapping")
        entries["metaData"]["configuration"] = {"delta.columnMapping.mode": mode}
        schema = json.loads(entries["metaData"]["schemaString"])
        for number, column in enumerate(schema["fields"], 1):
            name = column["name"]
            facts = {"id": number, "physicalName": name}
            column["metadata"] = {f"delta.columnMapping.{k}": v for k, v in facts.items()}
            column["name"] = physical.get(name, name)
        entries["metaData"]["schemaString"] = json.dumps(schema)

    rewrite_log(place, change)


def test_a_mapped_partition_column_is_read_by_the_tables_name(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", table(0, lang="de x"), partition_by=["lang"])
    map_columns(tmp_path / "t", "name", lang="Language", document="Text")

    def change(entries: dict[str, Any]) -> None:
        entries["metaData"]["partitionColumns"] = ["Language"]

    rewrite_log(tmp_path / "t", change)
    found = rows_of(spec(tmp_path / "t", document_col="Text"))
    assert {row["Language"] for row in found} == {"de x"}
    assert [row["Text"] for row in found] == table(0)["document"].to_pylist()


def write_with_ids(place: Path, rows: pa.Table) -> None:
    """Write a table whose files have the columns' ids, as engines with column mapping do."""
    fields = [
        field.with_metadata({"PARQUET:field_id": str(number)})
        for number, field in enumerate(rows.schema, 1)
    ]
    write_deltalake(place, rows)
    [file] = place.glob("*.parquet")
    pa.parquet.write_table(rows.cast(pa.schema(fields)), file)

    def change(entries: dict[str, Any]) -> None:
        entries["add"]["size"] = file.stat().st_size

    rewrite_log(place, change)


@pytest.mark.parametrize("mode", ["name", "id"])
def test_mapped_columns_are_read_by_the_tables_names(tmp_path: Path, mode: str) -> None:
    place = tmp_path / "t"
    write_with_ids(place, table(0, extra="x"))
    # Two columns have new names, and one has another column's name in the file.
    new = {"document": "Text", "doc_id": "query_id", "query_id": "doc_id", "query": "document"}
    map_columns(place, mode, **new)
    names = {"query_col": "document", "document_col": "Text"}
    names |= {"query_id_col": "doc_id", "doc_id_col": "query_id"}
    job = check(spec(place, **names))
    assert not job.record.prepares
    assert job.plan is not None
    wanted = [{new.get(k, k): v for k, v in row.items()} for row in table(0, extra="x").to_pylist()]
    assert rows_of(spec(place, **names)) == [row | {"_refusal": None} for row in wanted]
    given = check(spec(place, cluster=True, **names)).record.spec
    ordered = prepared(given, tmp_path).to_pylist()
    assert [row["Text"] for row in ordered] == [row["Text"] for row in wanted]


def test_mapped_texts_count_when_shards_are_cut(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", table(0))
    map_columns(tmp_path / "t", "name")
    before = read_pairs(spec(tmp_path / "t", keep_cols=["doc_id"])).group_bytes
    write_deltalake(tmp_path / "u", table(0))
    map_columns(tmp_path / "u", "name", document="Text", query="Q")
    named = {"document_col": "Text", "query_col": "Q", "keep_cols": ["doc_id"]}
    renamed = read_pairs(spec(tmp_path / "u", **named))
    assert renamed.group_bytes.tolist() == before.tolist()
    assert before.tolist() > [0]


def test_files_without_ids_are_refused_where_columns_are_mapped_by_id(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", table(0))
    map_columns(tmp_path / "t", "id", document="Text")
    with pytest.raises(InputError, match="columns have no field ids, and the Delta table"):
        check(spec(tmp_path / "t", document_col="Text"))


def test_column_mapping_inside_a_column_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, table(0, facts=[{"a": 1}]))

    def change(entries: dict[str, Any]) -> None:
        schema = json.loads(entries["metaData"]["schemaString"])
        inner = schema["fields"][-1]["type"]["elementType"]["fields"][0]
        inner["metadata"] = {"delta.columnMapping.id": 9}
        inner["metadata"]["delta.columnMapping.physicalName"] = "col-9"
        entries["metaData"]["schemaString"] = json.dumps(schema)

    map_columns(place, "name")
    rewrite_log(place, change)
    with pytest.raises(InputError, match=r"uses column mapping \(column 'a' inside another has an"):
        check(spec(place))


@pytest.mark.parametrize(
    ("feature", "said"),
    [("catalogManaged", "catalog-managed"), ("variantType", "uses variantType"), ("new", "new")],
)
def test_another_feature_is_refused_by_its_name(tmp_path: Path, feature: str, said: str) -> None:
    write_deltalake(tmp_path / "t", table(0))
    rewrite_log(tmp_path / "t", lambda entries: use_features(entries, feature))
    with pytest.raises(InputError, match=said):
        check(spec(tmp_path / "t"))


def test_a_column_in_another_case_is_refused_not_null(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, table(0))

    def rename(entries: dict[str, Any]) -> None:
        metadata = entries["metaData"]
        metadata["schemaString"] = metadata["schemaString"].replace("doc_id", "Doc_Id")

    rewrite_log(place, rename)
    with pytest.raises(InputError, match=r"column 'Doc_Id' of the .* is called 'doc_id' in this"):
        check(spec(place))


@pytest.mark.parametrize("log", [b"", b"{", b'{"add": 1}\n'])
def test_a_damaged_log_is_one_line(tmp_path: Path, log: bytes) -> None:
    write_deltalake(tmp_path / "t", table(0))
    (tmp_path / "t" / "_delta_log" / "00000000000000000000.json").write_bytes(log)
    with pytest.raises(InputError, match=r"^the Delta table .* cannot be read: [^\n]+$"):
        check(spec(tmp_path / "t"))


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "ü[1]"])
def test_a_folder_may_have_any_name(place: Path, name: str) -> None:
    place.rename(place.with_name(name))
    for other in ("a", "a b", name.replace("#", "%23")):  # a URI might lead to these
        (place.parent / other).mkdir(exist_ok=True)
    assert len(rows_of(spec(place.with_name(name)))) == 10


def test_a_folder_name_that_the_package_misreads_is_refused(place: Path) -> None:
    for name in ("a%20b", "a\\b"):
        moved = place.parent / name
        place.rename(moved)
        with pytest.raises(InputError, match=r"% or \\ in its name, for which deltalake would"):
            check(spec(moved))
        moved.rename(place)


def test_a_table_is_read_alone_and_as_input(place: Path, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "u", table(0))
    for places in (f"{place},{tmp_path}/u", f"{tmp_path}/u,{place}"):
        with pytest.raises(InputError, match=r"is a table \(Delta table\); give it alone"):
            check(spec(place).model_copy(update={"input_uri": places}))


def test_texts_of_a_run_may_be_tables_of_one_version(tmp_path: Path) -> None:
    rows = table(0)
    write_lines(
        tmp_path / "x.run", (f"{r['query_id']} Q0 {r['doc_id']} 1 2 x" for r in rows.to_pylist())
    )
    queries = rows.group_by(["query_id", "query"]).aggregate([])
    write_deltalake(tmp_path / "q", queries)
    write_deltalake(tmp_path / "d", rows.select(["doc_id", "document"]))
    map_columns(tmp_path / "d", "name", document="contents")
    texts = {"queries": str(tmp_path / "q"), "corpus": str(tmp_path / "d")}
    given = spec(tmp_path / "x.run", layout="run", **texts)
    job = check(given).record
    assert (job.spec.queries_version, job.spec.corpus_version) == ("0", "0")
    write_deltalake(tmp_path / "q", queries.slice(0, 1), mode="overwrite")
    found = prepared(job.spec, tmp_path)
    wanted = rows.select(["query_id", "doc_id", "query", "document"]).to_pylist()
    assert found.select(["query_id", "doc_id", "query", "document"]).to_pylist() == wanted
    assert check(given).record.job_id != job.job_id
    assert check(given.model_copy(update={"queries_version": "0"})).record.job_id == job.job_id
    with pytest.raises(InputError, match=r"at --queries-version 7 cannot be read"):
        check(given.model_copy(update={"queries_version": "7"}))
    with pytest.raises(InputError, match=r"^--corpus-version 7: .* has no versions; only Delta"):
        update = {"corpus_version": "7", "corpus": str(tmp_path / "x.run")}
        check(given.model_copy(update=update))
    with pytest.raises(InputError, match=r"^--queries-version is for --layout run, not pairs"):
        check(spec(tmp_path / "q", cluster=True, queries_version="0"))


def test_deleted_texts_of_a_run_are_missing(tmp_path: Path) -> None:
    rows = table(0)
    write_lines(
        tmp_path / "x.run", (f"{r['query_id']} Q0 {r['doc_id']} 1 2 x" for r in rows.to_pylist())
    )
    pa.parquet.write_table(
        rows.group_by(["query_id", "query"]).aggregate([]), tmp_path / "q.parquet"
    )
    write_deltalake(tmp_path / "d", rows.select(["doc_id", "document"]))
    delete(tmp_path / "d", [3])
    texts = {"queries": str(tmp_path / "q.parquet"), "corpus": str(tmp_path / "d")}
    given = check(spec(tmp_path / "x.run", layout="run", **texts)).record.spec
    found = prepared(given, tmp_path).to_pylist()
    assert [row["document"] is None for row in found] == [at == 3 for at in range(10)]


def test_a_version_of_plain_files_is_refused(tmp_path: Path) -> None:
    pa.parquet.write_table(table(0), tmp_path / "x.parquet")
    for place in (tmp_path, tmp_path / "x.parquet"):
        with pytest.raises(InputError, match=r"^--input-version 3: .* has no versions; only Delta"):
            check(spec(place, input_version="3"))


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    DeltaTable.create(tmp_path / "t", schema=table(0).schema)
    with pytest.raises(InputError, match=r"^the Delta table .*/t at version 0 has no rows"):
        check(spec(tmp_path / "t"))
