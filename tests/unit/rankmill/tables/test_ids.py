"""Ids of every type: grouped, joined, written and judged as what they name, or refused."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import ir_measures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ir_measures import R, nDCG

from producer.jobs.check import plan_job
from producer.quality.drift.diff import diff
from producer.quality.evaluate import evaluate
from producer.quality.qrels import read_qrels
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from rankmill.output.output import Output
from tests.support.finished import finished
from tests.support.prepared import prepared, spec_of, write_jsonl, write_lines, write_table
from worker.trec import write_trec_run

QUERY_IDS = [1, 1, 1, 2, 2]
DOC_IDS = [7_000_001, 7_000_002, 7_000_003, 7_000_003, 7_000_004]
QRELS = ["1 0 7000002 1", "1 0 7000001 0", "2 0 7000004 2"]


def pairs_of(query_ids: pa.Array, doc_ids: pa.Array) -> pa.Table:
    """Later documents score higher."""
    n_rows = len(query_ids)
    texts = {"query": ["q"] * n_rows, "document": [str(n) for n in range(n_rows)]}
    return pa.table({"query_id": query_ids, "doc_id": doc_ids, **texts})


def run(source: Path, folder: Path, **options: Any) -> Output:
    spec = JobSpec(
        input_uri=str(source), output_uri=str(folder / "out"), model_id="null", **options
    )
    return finished(plan_job(spec))


WHOLE = [
    pa.int8(),
    pa.uint64(),
    pa.float64(),
    pa.float32(),
    pa.decimal128(7, 0),
    pa.decimal128(38, 18),
    pa.decimal256(70, 30),
    pa.dictionary(pa.int8(), pa.float64()),
    pa.string(),
    pa.binary(),
    pa.dictionary(pa.int32(), pa.string()),
]


@pytest.mark.parametrize("kind", WHOLE, ids=str)
def test_runs_and_judgments_name_ids_alike_whatever_their_type(
    tmp_path: Path, kind: pa.DataType
) -> None:
    doc_kind = pa.int32() if kind == pa.int8() else kind
    columns = [
        pa.array(map(str, ids)).cast(kind.value_type).dictionary_encode()
        if pa.types.is_dictionary(kind)
        else pa.array(map(str, ids)).cast(kind)
        for ids, kind in ((QUERY_IDS, kind), (DOC_IDS, doc_kind))
    ]
    source = write_table(tmp_path / "in" / "in.parquet", pairs_of(*columns))
    output = run(source, tmp_path, trec_run=True, shard_pairs=2)
    write_trec_run(output.load_job())
    lines = Path(output.trec_run_uri).read_text().splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["1", "Q0", "7000003", "1"],
        ["1", "Q0", "7000002", "2"],
        ["1", "Q0", "7000001", "3"],
        ["2", "Q0", "7000004", "1"],
        ["2", "Q0", "7000003", "2"],
    ]
    qrels = write_lines(tmp_path / "qrels", QRELS)
    theirs = ir_measures.calc_aggregate(
        [nDCG @ 10, R @ 100],
        ir_measures.read_trec_qrels(str(qrels)),
        ir_measures.read_trec_run(output.trec_run_uri),
    )
    ours = {
        each.measure: each.after for each in evaluate(output, read_qrels(str(qrels))).comparisons
    }
    assert ours["nDCG@10"] == pytest.approx(theirs[nDCG @ 10]) and theirs[nDCG @ 10] > 0.8
    assert ours["R@100"] == theirs[R @ 100] == 1
    kinds = {
        pq.read_schema(part).field("doc_id").type for part in (tmp_path / "out").glob("*.par*")
    }
    is_float = "double" in str(kind) or "float" in str(kind)
    stored = pa.table({"doc_id": columns[1]}).schema
    assert kinds == ({pa.int64()} if is_float else {stored.field("doc_id").type})


NOT_WHOLE = [
    (pa.float64(), 0.5),
    (pa.float64(), float("inf")),
    (pa.float64(), -float("inf")),
    (pa.float64(), 2.0**53),
    (pa.float32(), 2.0**24),
    (pa.float16(), 2.0**11),
]


@pytest.mark.parametrize("name", ["query_id", "doc_id"])
@pytest.mark.parametrize(("kind", "value"), NOT_WHOLE, ids=str)
@pytest.mark.parametrize("options", [{}, {"cluster": True}], ids=str)
def test_an_id_that_is_not_whole_is_refused_by_file_and_row(
    tmp_path: Path, kind: pa.DataType, value: float, name: str, options: dict[str, Any]
) -> None:
    good, bad = (pa.array([1, n, 2], kind) for n in (1, value))
    for number, ids in enumerate((good, bad)):
        other = pa.array([f"{number}", f"{number}", f"{number}x"])
        columns = {"query_id": other, "doc_id": other, name: ids}
        table = pairs_of(columns["query_id"], columns["doc_id"])
        write_table(tmp_path / "in" / f"{number}.parquet", table)
    wanted = rf"in/1\.parquet, row 1: column '{name}' .*write such ids as integers or as text"
    with pytest.raises(InputError, match=wanted):
        if options:
            prepared(spec_of(tmp_path / "in", duplicates="keep", **options), tmp_path)
        else:
            run(tmp_path / "in", tmp_path, duplicates="keep")


def test_an_id_that_is_null_stays_null(tmp_path: Path) -> None:
    doc_ids = pa.array([7.0, None, -0.0, 2.0**53 - 1, float("nan")], from_pandas=False)
    source = write_table(tmp_path / "in.parquet", pairs_of(pa.array(QUERY_IDS), doc_ids))
    run(source, tmp_path)
    found = pq.read_table(tmp_path / "out")
    assert found["doc_id"].to_pylist() == [0, None, 7, None, 2**53 - 1]


@pytest.mark.parametrize("options", [{}, {"cluster": True}])
def test_lists_of_candidates_with_float_ids(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = [
        {
            "query_id": 1.0,
            "query": "a",
            "candidates": [{"id": 5.0, "text": "1"}, {"id": 6.0, "text": "2"}],
        },
        {
            "query_id": 2.0,
            "query": "b",
            "candidates": [{"id": 7.0, "text": "3"}, {"id": None, "text": "4"}],
        },
    ]
    sources = [
        write_table(tmp_path / "lists.parquet", pa.Table.from_pylist(rows)),
        write_jsonl(tmp_path / "lists.jsonl", rows),
    ]
    for source in sources:
        found = prepared(spec_of(source, layout="lists", **options), tmp_path)
        assert found["query_id"].to_pylist() == [1, 1, 2, 2]
        assert found["doc_id"].to_pylist() == [5, 6, 7, None]
        assert {found.schema.field(name).type for name in ("query_id", "doc_id")} == {pa.int64()}
    rows[1]["candidates"][1]["id"] = 7.5
    write_jsonl(sources[1], rows)
    with pytest.raises(
        InputError, match=r"lists\.jsonl, row 1: column 'doc_id' \(double\) has 7\.5"
    ):
        prepared(spec_of(sources[1], layout="lists", **options), tmp_path)


def run_over(folder: Path, run: pa.Table, doc_ids: pa.Array) -> JobSpec:
    texts = pa.array([f"text {n}" for n in range(len(doc_ids))])
    return spec_of(
        write_table(folder / "run.parquet", run),
        layout="run",
        queries=write_table(
            folder / "queries.parquet", pa.table({"_id": [1, 2], "text": ["a", "b"]})
        ),
        corpus=write_table(folder / "corpus.parquet", pa.table({"_id": doc_ids, "text": texts})),
    )


@pytest.mark.parametrize("ours", [pa.float64(), pa.int32(), pa.decimal128(9, 0)], ids=str)
@pytest.mark.parametrize("theirs", [pa.float64(), pa.int64(), pa.uint64()], ids=str)
def test_runs_are_joined_by_number(tmp_path: Path, ours: pa.DataType, theirs: pa.DataType) -> None:
    query_ids = pa.array([1.0, 2.0, 1.0])
    doc_ids = pa.array(["10", "11", "12"]).cast(ours)
    run = pa.table({"query_id": query_ids, "doc_id": doc_ids})
    found = prepared(run_over(tmp_path, run, pa.array([12, 10], theirs)), tmp_path)
    assert found["query_id"].to_pylist() == [1, 1, 2]
    assert list(map(int, found["doc_id"].to_pylist())) == [10, 12, 11]
    assert found["document"].to_pylist() == ["text 1", "text 0", None]
    assert found["_refusal"].to_pylist() == [None, None, "document is not in --corpus"]


def test_a_run_by_number_does_not_meet_a_corpus_by_text(tmp_path: Path) -> None:
    run = pa.table({"query_id": pa.array([1.0]), "doc_id": pa.array([10.0])})
    with pytest.raises(InputError, match=r"column 'doc_id' is int64, but '_id' .* is string; ids"):
        prepared(run_over(tmp_path, run, pa.array(["10"])), tmp_path)


@pytest.mark.parametrize("which", ["run", "corpus"])
def test_a_fraction_in_a_join_is_refused_by_file_and_row(tmp_path: Path, which: str) -> None:
    ids = {"run": pa.array([10.0, 11.0]), "corpus": pa.array([10.0, 12.0])}
    ids[which] = pa.array([10.0, 10.5])
    run = pa.table({"query_id": pa.array([1.0, 1.0]), "doc_id": ids["run"]})
    with pytest.raises(InputError, match=rf"{which}\.parquet, row 1: column '\w+' .*has 10\.5"):
        prepared(run_over(tmp_path, run, ids["corpus"]), tmp_path)


TIMES = [
    pa.timestamp("us"),
    pa.timestamp("ns", "Europe/Berlin"),
    pa.date32(),
    pa.date64(),
    pa.time32("ms"),
    pa.time64("ns"),
    pa.duration("us"),
]


@pytest.mark.parametrize("kind", TIMES, ids=str)
def test_times_are_ids_even_those_that_python_has_no_object_for(
    tmp_path: Path, kind: pa.DataType
) -> None:
    """As the year 10000, or a nanosecond."""
    limit = 80_000_000 if pa.types.is_time(kind) else 2**31 - 86_400_000
    values = [1, 1, limit, limit, None]
    if kind == pa.date64():
        values = [value and value * 86_400_000 for value in values]
    width = pa.int32() if kind.bit_width == 32 else pa.int64()
    ids = pa.array(values, width).cast(kind)
    names = pa.array(list("abcde"))
    for number, columns in enumerate(((ids, names), (names, ids))):
        source = write_table(tmp_path / f"{number}.parquet", pairs_of(*columns))
        for options in ({"duplicates": "keep"}, {"cluster": True, "duplicates": "keep"}):
            if options.get("cluster"):
                found = prepared(spec_of(source, **options), tmp_path / str(number))
            else:
                run(source, tmp_path / str(number), max_reject_rate=1, **options)
                found = pq.read_table(tmp_path / str(number) / "out")
                assert found["rank"].to_pylist() == ([1, 2, 1, 2], [1] * 5)[number]
            name = ("query_id", "doc_id")[number]
            assert found.schema.field(name).type == pq.read_schema(source).field(name).type
    with pytest.raises(InputError, match="twice or more, in rows"):
        table = pairs_of(pa.array(list("aabbc")), ids)
        run(write_table(tmp_path / "twice.parquet", table), tmp_path / "twice")


def test_a_timestamp_is_not_a_word_of_a_trec_run(tmp_path: Path) -> None:
    ids = pa.array([1, 2], pa.timestamp("us"))
    source = write_table(tmp_path / "in.parquet", pairs_of(ids, pa.array(["a", "b"])))
    with pytest.raises(InputError, match="--trec-run: column 'query_id' is a timestamp"):
        run(source, tmp_path, trec_run=True)


def test_judgments_in_parquet_name_ids_as_outputs_do(tmp_path: Path) -> None:
    table = pa.table(
        {
            "query_id": [1.0, 2.0],
            "doc_id": pa.array([Decimal("7000001.00"), Decimal("7.50")]),
            "relevance": [1.0, 2.0],
        }
    )
    path = write_table(tmp_path / "qrels.parquet", table)
    assert read_qrels(str(path)) == {"1": {"7000001": 1}, "2": {"7.5": 2}}
    write_table(path, table.set_column(0, "query_id", pa.array([1.0, 2.5])))
    with pytest.raises(InputError, match=r"qrels\.parquet: ids are text or numbers, .*: 2\.5"):
        read_qrels(str(path))


def test_outputs_with_float_and_with_integer_ids_are_compared(tmp_path: Path) -> None:
    outputs = []
    for kind in (pa.float64(), pa.int32(), pa.decimal128(9, 0)):
        table = pairs_of(pa.array(QUERY_IDS, pa.int64()), pa.array(map(str, DOC_IDS)).cast(kind))
        folder = tmp_path / str(kind.bit_width)
        outputs.append(run(write_table(folder / "in.parquet", table), folder))
    for old, new in pairwise(outputs):
        assert diff(old, new).pairs.n_common == 5


@pytest.mark.parametrize("options", [{}, {"layout": "pairs", "cluster": True}], ids=str)
def test_folders_name_queries_as_judgments_do(tmp_path: Path, options: dict[str, Any]) -> None:
    table = pairs_of(pa.array(["x", "x"]), pa.array(["a", "b"])).drop_columns(["query_id"])
    for query_id in ("007", "012", "8"):
        write_table(tmp_path / "in" / f"query_id={query_id}" / "0.parquet", table)
    if options:
        found = prepared(spec_of(tmp_path / "in", **options), tmp_path)
        assert found["query_id"].to_pylist() == ["007", "007", "012", "012", "8", "8"]
        return
    output = run(tmp_path / "in", tmp_path, trec_run=True)
    write_trec_run(output.load_job())
    lines = Path(output.trec_run_uri).read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["007", "007", "012", "012", "8", "8"]
    evaluation = evaluate(output, {"007": {"b": 1}, "8": {"b": 1}})
    assert evaluation.n_in_parts == 2 and evaluation.comparisons[0].after == 1
