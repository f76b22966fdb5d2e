"""The command line over lake tables: rows, versions and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

from rankmill.output.output import Output
from tests.support.command import Run, called, rankmill
from tests.support.inputs import pairs, read_output
from tests.support.lake import delete


def table(n_queries: int) -> pa.Table:
    return pa.Table.from_pylist(pairs(n_queries, 5))


def spec_in_manifest(output: Path) -> dict[str, Any]:
    manifest = Output(str(output)).read_manifest()
    assert manifest is not None
    return manifest.spec.model_dump()


def test_a_delta_table_is_scored_at_one_version(tmp_path: Path, submit_and_watch: Run) -> None:
    place, out = tmp_path / "t", tmp_path / "out"
    for n_queries in (4, 3, 2):
        write_deltalake(place, table(n_queries), mode="overwrite")
    done = submit_and_watch(place, out, "--model", "null")
    assert done.returncode == 0, done.stderr
    assert {row["doc_id"] for row in read_output(out)} == {*table(2)["doc_id"].to_pylist()}
    assert spec_in_manifest(out)["input_version"] == "2"
    write_deltalake(place, table(1), mode="overwrite")
    newer = called("run", place, out, "--model", "null")
    assert newer.returncode == 2 and "holds the result of another job" in newer.stderr
    same = called("run", place, out, "--model", "null", "--input-version", 2)
    assert same.returncode == 0, same.stderr
    older = ("--model", "null", "--input-version", 1, "--cluster")
    assert submit_and_watch(place, tmp_path / "old", *older).returncode == 0
    assert len(read_output(tmp_path / "old")) == 15
    estimate = called("estimate", place, "--model", "null", "--input-version", 0, "--json")
    assert json.loads(estimate.stdout)["n_rows"] == 20
    for wrong, said in ((("--input-version", "9"), "at --input-version 9"), ((), "part of the De")):
        which = place if wrong else next(place.glob("*.parquet"))
        refused = called("run", which, tmp_path / "no", "--model", "null", *wrong)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1) and said in refused.stderr
        assert not (tmp_path / "no").exists()


def test_a_table_with_deleted_rows_is_scored_without_them(
    tmp_path: Path, submit_and_watch: Run
) -> None:
    place, out = tmp_path / "t", tmp_path / "out"
    rows = table(2).set_column(3, "document", [["text"] * 7 + [None] * 3])
    write_deltalake(place, rows)
    delete(place, [0, 8])
    done = submit_and_watch(place, out, "--model", "null", "--max-reject-rate", 1)
    assert done.returncode == 0, done.stderr
    left = table(2)["doc_id"].to_pylist()[1:7]
    assert sorted(row["doc_id"] for row in read_output(out)) == sorted(left)
    rejects = pa.parquet.read_table(Output(str(out)).rejected_uri(0))
    [file] = place.glob("*.parquet")
    assert sorted(rejects["row"].to_pylist()) == [7, 9]
    assert set(rejects["file"].to_pylist()) == {str(file)}
    estimate = called("estimate", place, "--model", "null", "--json")
    assert json.loads(estimate.stdout)["n_rows"] == 8


def test_an_iceberg_table_is_named_by_its_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, out = f"sqlite:///{tmp_path}/c.db", tmp_path / "out"
    catalog = SqlCatalog("lake", uri=uri, warehouse=f"file://{tmp_path}/w")
    catalog.create_namespace("n")
    made = catalog.create_table("n.t", schema=table(1).schema)
    made.append(table(3))
    made.overwrite(table(2))
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", uri)
    # A process of its own, since pyiceberg reads the environment when it is imported.
    done = rankmill("run", "iceberg://lake/n.t", out, "--model", "null")
    assert done.returncode == 0, done.stderr
    assert len(read_output(out)) == 10
    spec = spec_in_manifest(out)
    assert spec["input_version"] == str(made.metadata.current_snapshot_id)
    assert f"file://{spec['input_uri']}" == made.metadata_location
    for name in ("iceberg://lake/n.other", "iceberg://no/n.t", "iceberg://lake"):
        refused = rankmill("estimate", name, "--model", "null")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert name in refused.stderr
