"""The benchmark of a card keeps what it measured, its time, and goes on after a failure."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
import torch

from bench.engine.peers import TorchPeer
from bench.engine.sides import Pairs
from bench.gpu import plan as plans
from bench.gpu.kernels import measure_kernels
from bench.gpu.memory import measure_memory
from bench.gpu.plan import Call, plan, run, show
from bench.gpu.processes import Child, child
from bench.gpu.report import Bar, report, verdict
from bench.gpu.rows import EXIT_OUT_OF_TIME, Budget, Rows, read_rows
from bench.gpu.speed import FIRST_WINDOW_PAIRS, WINDOW_PAIRS, Subject, measure_speed, windows
from bench.workload import build_pairs, read_corpus
from rankmill.settings import CHECKOUT, Settings
from worker.shard import score

DEMO = CHECKOUT / "models" / "demo-reranker"


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path / "rows.jsonl", "a call")


def written(tmp_path: Path) -> list[dict[str, Any]]:
    return read_rows(tmp_path / "rows.jsonl")


def python(code: str, path: Path) -> list[str]:
    begin = "import sys, time; from pathlib import Path; from bench.gpu.rows import Budget, Rows;"
    return [sys.executable, "-c", f"{begin} rows = Rows(Path({str(path)!r}), 'a call'); {code}"]


def test_a_killed_call_leaves_the_rows_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    code = "[(rows.write('peer', batch=n), time.sleep(0.05)) for n in range(1000)]"
    killed = subprocess.Popen(python(code, path), cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    while len(read_rows(path)) < 3:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    before = read_rows(path)
    assert [row["batch"] for row in before] == list(range(len(before)))
    with path.open("a") as file:
        file.write('{"call": "a call", "ki')  # it was killed while it wrote
    Rows(path, "the next").write("engine")
    assert [row["kind"] for row in read_rows(path)] == ["peer"] * len(before) + ["engine"]


def test_a_call_ends_when_its_time_is_over_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    code = (
        "budget = Budget(0.3, rows); kept = budget.kept(); kept.__enter__();"
        "print(budget.allows('a long one', 9), budget.allows('the next', 0.1)); sys.stdout.flush();"
        "time.sleep(60)"
    )
    done = subprocess.run(python(code, path), cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (EXIT_OUT_OF_TIME, "False True\n")
    left_out, cut_off = read_rows(path)
    assert (left_out["kind"], left_out["what"], left_out["expected_s"]) == (
        "left_out",
        "a long one",
        9,
    )
    assert (cut_off["kind"], cut_off["during"]) == ("cut_off", "the next")


class FullAbove:
    """A peer whose device is full, or fails, at some batch sizes."""

    name = "torch fp32"

    def __init__(self, full: int, broken: Sequence[int] = ()) -> None:
        self._peer = TorchPeer(DEMO, "cpu", "fp32")
        self._full, self._broken = full, broken

    def predict(self, pairs: Pairs, batch: int) -> np.ndarray:
        if batch in self._broken:
            raise ValueError("attention has no kernel for this")
        if batch >= self._full:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 15.00 GiB.")
        return self._peer.predict(pairs, batch)


@pytest.fixture(scope="module")
def subject() -> Subject:
    from bench.gpu.checkpoints import shape

    pairs = build_pairs(read_corpus(), "plain", 48)
    return Subject(DEMO, shape("demo", DEMO), pairs, "cpu", "fp32", (8, 16, 24, 48), peak_size=64)


def test_memory_that_runs_out_at_a_batch_is_a_row_and_not_the_end(
    subject: Subject, rows: Rows, tmp_path: Path
) -> None:
    peers = {"sdpa": lambda: FullAbove(48, [16]), "absent": lambda: __import__("no_such_module")}
    measure_speed(subject, peers, rows, Budget(300, rows))
    found = {row["kind"]: row for row in written(tmp_path)}
    of_peer = [(row["kind"], row.get("batch", row.get("what"))) for row in written(tmp_path)]
    assert [each for each in of_peer if each[0] == "peer"] == [("peer", 8), ("peer", 24)]
    assert ("failed", "sdpa, batch 16") in of_peer
    assert ("out_of_memory", "sdpa, batch 48") in of_peer
    assert ("failed", "absent, batch 8") in of_peer
    result = found["result"]
    assert result["best_peer"] == "sdpa" and result["best_batch"] in (8, 24)
    assert result["times_best_peer"] > 0 and result["top10_overlap"] == 1
    assert result["peak_share"] > 0
    assert found["agreement"]["max_difference"] < 1e-4


def test_what_does_not_fit_into_the_time_is_left_out(
    subject: Subject, rows: Rows, tmp_path: Path
) -> None:
    peers = {"sdpa": lambda: FullAbove(48)}
    measure_speed(subject, peers, rows, Budget(0, rows))
    kinds = [row["kind"] for row in written(tmp_path)]
    assert kinds.count("left_out") >= 2 and kinds[-1] == "result"
    assert written(tmp_path)[-1]["pairs_per_s"] > 0


def test_windows_are_those_of_a_worker() -> None:
    assert (
        score._FIRST_WINDOW_PAIRS,
        Settings().window_pairs,
    ) == (FIRST_WINDOW_PAIRS, WINDOW_PAIRS)
    sizes = [len(window.queries) for window in windows([("a", "b")] * 5000)]
    assert sizes == [256, 4096, 648]


def test_memory_is_written_for_each_precision(rows: Rows, tmp_path: Path) -> None:
    pairs = build_pairs(read_corpus(), "tiny", 8)
    budget = Budget(300, rows)
    measure_memory(DEMO, pairs, device="cpu", precisions=["fp32"], rows=rows, budget=budget)
    (row,) = written(tmp_path)
    assert row["precision"] == "fp32" and row["n_parameters"] > 1_000_000
    assert row["peak_bytes"] >= row["loaded_bytes"] > 0
    assert row["weights_bytes_by_arithmetic"] == 4 * row["n_parameters"]


def test_kernels_are_written_by_their_share_of_the_time(rows: Rows, tmp_path: Path) -> None:
    pairs = build_pairs(read_corpus(), "tiny", 16)
    budget = Budget(300, rows)
    measure_kernels(DEMO, pairs, device="cpu", precision="fp32", rows=rows, budget=budget)
    shares = [row["share"] for row in written(tmp_path) if row["kind"] == "kernel"]
    assert shares == sorted(shares, reverse=True) and 0.5 < sum(shares) <= 1.001
    assert len({row["name"] for row in written(tmp_path)}) == len(shares) > 2


@pytest.mark.slow
def test_a_process_says_when_it_has_scored_and_how_many() -> None:
    with child(DEMO, "cpu", "fp32", 16) as started:
        assert {"import_s", "load_s", "first_score_s"} == started.facts().keys()
        started.go(0.01)
        facts = started.facts()
        assert facts["n_pairs"] % 16 == 0 < facts["seconds"]


def test_a_process_that_ends_is_an_error_with_its_last_line() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('a line\\nout of memory')"]
    with TemporaryFile() as log:
        ended = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        with pytest.raises(RuntimeError, match=r"^out of memory$"):
            Child(ended, log).facts()
        ended.communicate()


def test_the_plan_has_each_call_once_with_a_limit() -> None:
    for device in ("cuda", "cpu"):
        calls = plan(device)
        names = [call.name for call in calls]
        assert len(set(names)) == len(names)
        assert all(call.limit_s <= 180 for call in calls)
        for at, call in enumerate(calls):
            if call.arguments[0] in ("speed", "memory", "kernels", "start", "two"):
                model = call.arguments[call.arguments.index("--model") + 1]
                assert model == "demo" or f"build {model}" in [*names[:at], "build causal-tiny"]
    shown = show(plan("cuda"), device="cuda", out=Path("/rows"), work=Path("/work"))
    assert "speed bge plain: at most 180 s" in shown and "--out /rows" in shown


def test_a_plan_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: Any) -> None:
    sleeps = tmp_path / "test_sleeps.py"
    sleeps.write_text("import time\n\ndef test_it():\n    time.sleep(60)\n")
    monkeypatch.setattr(plans, "GRACE_S", 0)
    calls = [
        Call("good", ("pytest", "--version"), "nothing", 60),
        Call("hangs", ("pytest", str(sleeps)), "nothing", 2),
        Call("too long", ("pytest", "--version"), "nothing", 10_000),
    ]
    where = {"device": "cpu", "out": tmp_path / "rows.jsonl", "work": tmp_path}
    assert run(calls, **where, minutes=10) == ["hangs", "too long"]
    assert [row["kind"] for row in written(tmp_path)] == ["tests", "done", "killed"]
    assert run(calls[:1], **where, minutes=None) == []
    assert len(written(tmp_path)) == 3


def test_the_report_says_which_bars_are_met_and_what_was_not_measured() -> None:
    result = {"call": "speed bge plain", "kind": "result", "times_best_peer": 3.2}
    lost = {"call": "speed bge plain", "kind": "out_of_memory", "what": "sdpa, batch 2048"}
    text = report([result, lost])
    assert "times_best_peer at least 3: met, 3.2" in text
    assert "peak_share at least 0.6: not measured" in text
    assert "out_of_memory what sdpa, batch 2048" in text
    assert verdict(Bar("speed bge plain", "times_best_peer", 4), [result]).endswith("missed, 3.2")


def test_peers_have_flash_attention_only_where_it_is_installed(monkeypatch: Any) -> None:
    from bench.gpu import speed

    assert list(speed.peers_of(DEMO, "cpu", "fp32")) == ["sdpa"]
    monkeypatch.setattr(speed, "find_spec", lambda name: inspect)
    assert list(speed.peers_of(DEMO, "cpu", "fp32")) == ["sdpa", "flash_attention_2"]
