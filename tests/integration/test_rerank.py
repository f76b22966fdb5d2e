"""`producer.rerank`: tables of every library through the scorer of this process, as a job's."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch

from producer import free_model, rerank
from rankmill.contract.results import Manifest
from rankmill.errors import InputError, JobFailed, RankmillError
from rankmill.output.output import Job
from rankmill.settings import CHECKOUT, settings
from tests.support.command import environment
from tests.support.inputs import pairs, write
from worker import in_process, models

ROWS = pairs(6, 9)
MONTHS = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
BACKWARDS = list(range(len(ROWS)))[::-1]


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RANKMILL_THREADS", "1")
    monkeypatch.setenv("RANKMILL_DEVICE", "cpu")
    settings.cache_clear()
    yield
    settings.cache_clear()


SCRIPT = """
import sys
import producer, rankmill
from producer import Job, diff, estimate, evaluate, rerank, run, submit
assert all(sys.prefix in each.__file__ for each in (producer, rankmill)), producer.__file__
assert "torch" not in sys.modules and "worker" not in sys.modules
job = run("in.parquet", "out", model=sys.argv[1], top_k=4, shard_pairs=20, progress=False)
assert isinstance(job, Job) and job.table().num_rows == 24
assert estimate("in.parquet", model="demo", calibrate=False).tokens
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an empty environment, and return its Python.

    The packages that it needs are those of this environment, which has no wheel of Rankmill.
    """
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, capture_output=True)
    (site,) = folder.glob("venv/lib/python*/site-packages")
    assert all((site / name / "py.typed").exists() for name in ("producer", "rankmill", "worker"))
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture(scope="module")
def of_a_job(
    installed: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> pa.Table:
    """Return the output of `run` from the wheel, in a folder with a module called tasks."""
    folder = tmp_path_factory.mktemp("job")
    write(ROWS, folder / "in.parquet")
    (folder / "tasks.py").write_text("raise SystemExit('the wrong module')")
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [installed, "script.py", model_folder],
        cwd=folder,
        env={name: value for name, value in environment().items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return ds.dataset(folder / "out").to_table()


def of_duckdb(table: pa.Table) -> Any:
    return duckdb.connect().from_arrow(table)


KINDS: dict[str, tuple[Callable[[pa.Table], Any], Callable[[Any], pa.Table]]] = {
    "pyarrow": (lambda table: table, lambda made: made),
    "batch": (
        lambda table: table.combine_chunks().to_batches()[0],
        lambda made: pa.Table.from_batches([made]),
    ),
    "reader": (lambda table: table.to_reader(), lambda made: made.read_all()),
    "pandas": (lambda table: table.to_pandas(), lambda made: pa.Table.from_pandas(made)),
    "polars": (pl.DataFrame, lambda made: made.to_arrow()),
    "lazy polars": (lambda table: pl.LazyFrame(table), lambda made: made.collect().to_arrow()),
    "duckdb": (of_duckdb, lambda made: made.to_arrow_table()),
    "datasets": (
        # With row indices of its own.
        lambda table: datasets.Dataset(table).select(BACKWARDS).select(BACKWARDS),
        lambda made: made.with_format("arrow")[:],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_each_library_is_reranked_bit_for_bit_as_by_a_job(
    kind: str, model_folder: Path, of_a_job: pa.Table
) -> None:
    make, read = KINDS[kind]
    table = pa.Table.from_pylist([{**row, "at": at} for at, row in enumerate(ROWS)])
    given = make(table)
    made = rerank(given, model=str(model_folder), top_k=4, shard_pairs=20, progress=False)
    assert type(made) is type(given)
    result = read(made)
    assert result.column_names == [*of_a_job.column_names[:2], "at", *of_a_job.column_names[2:]]
    for name in of_a_job.column_names:
        assert result[name].to_pylist() == of_a_job[name].to_pylist(), name


def test_the_model_stays_loaded_until_it_is_freed_and_torch_keeps_its_threads(
    model_folder: Path,
) -> None:
    torch.set_num_threads(2)
    table = pa.Table.from_pylist(ROWS)

    def scorer() -> object:
        rerank(table, model=str(model_folder), progress=False)
        ((_, held),) = models._held.items()
        return next(iter(held.scorers.values())).scorer

    first = scorer()
    assert scorer() is first and torch.get_num_threads() == 2
    free_model()
    assert not models._held and scorer() is not first
    rerank(table, model="demo", progress=False)
    assert len(models._held) == 1  # two models may not fit
    free_model()


def test_frames_keep_their_types_and_the_names_of_their_index(model_folder: Path) -> None:
    frame = pd.DataFrame(ROWS).assign(
        score=range(len(ROWS)), year=pd.array([2026] * len(ROWS), dtype="Int16")
    )
    frame["shop"] = pd.Categorical(["a"] * len(ROWS))
    frame = frame.set_index("doc_id").sort_index(kind="stable", key=lambda ids: ids.str[:2])
    made = rerank(frame, model=str(model_folder), progress=False)
    assert made["year"].dtype == "Int16" and made["shop"].dtype == "category"
    assert set(made["doc_id"]) == {row["doc_id"] for row in ROWS}
    assert made["score"].dtype == "float32" and list(made.index) == list(range(len(ROWS)))
    nested = pl.DataFrame(
        {"query": ["a", "b"], "candidates": [[{"doc_id": "x", "document": "x y"}]] * 2}
    )
    lists = rerank(nested, model=str(model_folder), layout="lists", progress=False)
    assert lists["candidates"][0][0]["rank"] == 1


class Views:
    """A table of a library without a special case, with Arrow's string views."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table.cast(
            pa.schema([(name, pa.string_view()) for name in table.schema.names])
        )

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Views:
        made = cls.__new__(cls)
        made.table = table
        return made

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def test_any_table_with_the_capsule_interface_is_taken_and_empty_ones_are_results(
    model_folder: Path,
) -> None:
    table = pa.Table.from_pylist(ROWS)
    made = rerank(Views(table), model=str(model_folder), top_k=1, progress=False)
    assert isinstance(made, Views) and made.table.num_rows == 6
    empty = rerank(table.slice(0, 0), model=str(model_folder), progress=False)
    assert empty.num_rows == 0 and "rank" in empty.column_names


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"topk": 3}, r"rerank\(\) has no argument topk; did you mean top_k\?"),
        ({"modle": "demo"}, "has no argument modle; did you mean model"),
        ({"model_id": "demo"}, "has model twice"),
        ({"top_k": 0}, r"rerank\(\): top_k 0 should be greater"),
        ({"query_col": "q"}, "column 'q' is missing; .*; query_col names another"),
        ({"max_length": 10**6}, "max_length 1000000: .* takes at most"),
        ({"no_token": "x"}, "no_token x needs yes_token"),
        ({"device": "tpu"}, "device 'tpu' is not a device"),
        ({"for_reuse": True}, r"rerank\(\) has no for_reuse; run\(\)"),
        ({"layout": "run"}, "queries"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(
    options: dict[str, Any], line: str, model_folder: Path
) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pytest.raises(InputError, match=line) as refused:
        rerank(table, **{"model": str(model_folder), **options}, progress=False)
    assert "--" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ([{"query": "a"}], "not builtins.list"),
        (pd.Series(["a"]), "cannot be read as Arrow|rerank takes"),
        (
            pd.DataFrame({"query": ["a", 1], "document": ["b", "c"]}),
            "cannot be read as Arrow: .*query",
        ),
        (pa.table({"x": [1]}), "column 'query' is missing"),
        (pd.DataFrame({"p": pd.period_range("2026", periods=1)}), "column 'p' is period"),
        (
            pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}),
            "a column that Parquet cannot hold: .*interval",
        ),
        (pa.Table.from_pylist([ROWS[0], ROWS[12], ROWS[1]]), "comes again in row 2.*cluster=True"),
        (pa.Table.from_pylist([ROWS[0], ROWS[0]]), "twice or more"),
    ],
)
def test_a_table_that_cannot_be_reranked_is_refused_in_one_line(
    data: Any, line: str, model_folder: Path
) -> None:
    with pytest.raises(InputError, match=line) as refused:
        rerank(data, model=str(model_folder), progress=False)
    assert "\n" not in str(refused.value) and "/tmp" not in str(refused.value)


def test_scattered_rows_are_grouped_and_rejects_are_counted_aloud(model_folder: Path) -> None:
    rows = [dict(ROWS[at * 7 % len(ROWS)]) for at in range(len(ROWS))]
    rows[5]["document"] = ""
    table = pa.Table.from_pylist(rows)
    with pytest.raises(JobFailed, match=r"1 of 54 rows .* max_reject_rate 0.01 allows"):
        rerank(table, model=str(model_folder), cluster=True, progress=False)
    options: dict[str, Any] = {"cluster": True, "max_reject_rate": 0.1, "progress": False}
    with pytest.warns(UserWarning, match=r"1 of 54 rows are left out \(document is empty: 1\)"):
        made = rerank(table, model=str(model_folder), **options)
    assert made.num_rows == 53


def test_workers_limits_on_places_do_not_keep_a_table_from_its_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", "/data")
    monkeypatch.setenv("RANKMILL_SCRATCH", str(tmp_path))
    settings.cache_clear()
    table = pa.Table.from_pylist(ROWS)
    assert rerank(table, model="demo", progress=False).num_rows == len(ROWS)
    assert list(tmp_path.iterdir()) == [] and settings().allowed_prefixes == ("/data",)
    with pytest.raises(RankmillError, match="lies outside"):
        rerank(table, model="demo", queries="/etc/passwd", layout="run", corpus="/x")


def test_the_progress_is_shown_with_and_without_tqdm(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rerank(pa.Table.from_pylist(ROWS), model=str(model_folder))
        assert "54/54" in capsys.readouterr().err
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        rerank(pa.Table.from_pylist(ROWS), model=str(model_folder))
    assert capsys.readouterr().err.splitlines() == [
        *("loading the model", "scoring: 54 of 54 pairs"),
    ]


def test_one_process_cuts_a_table_into_no_more_shards_than_their_size_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = list(range(3000))
    table = pa.table({"query": [f"q{each // 10}" for each in ids], "document": map(str, ids)})
    score, planned = in_process.score, []

    def scored(job: Job, progress: Callable[[str, int], None]) -> Manifest:
        planned.append(job.plan.n_shards)
        return score(job, progress)

    monkeypatch.setattr(in_process, "score", scored)
    assert rerank(table, model="null", progress=False).num_rows == len(ids)
    assert rerank(table, model="null", progress=False, shard_pairs=1000).num_rows == len(ids)
    assert planned == [1, 3]


def test_a_module_that_hides_the_workers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hiding = ModuleType("worker")
    hiding.__file__ = "/home/me/worker.py"
    monkeypatch.setitem(sys.modules, "worker", hiding)
    monkeypatch.delitem(sys.modules, "worker.in_process", raising=False)
    with pytest.raises(InputError, match=r"/home/me/worker.py hides Rankmill's package `worker`"):
        rerank(pa.Table.from_pylist(ROWS), model="demo")


def test_without_torch_the_call_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"needs torch: pip install 'rankmill\[worker\]'"):
        rerank(pa.Table.from_pylist(ROWS), model="demo")
