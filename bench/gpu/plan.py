"""The calls that measure a card, by worth, and how they are run one after the other."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gpu.rows import Rows, read_rows

_CHECKOUT = Path(__file__).parents[2]
_LIMIT_S = 180

# Beyond its own limit, for the imports before it counts and the end of its process.
GRACE_S = 30


@dataclass(frozen=True)
class Call:
    """One process of the plan.

    Attributes:
        arguments: of `python -m bench.gpu`, or a whole command.
        measures: what its rows say.
    """

    name: str
    arguments: tuple[str, ...]
    measures: str
    limit_s: int = _LIMIT_S

    def command(self, *, device: str, out: Path, work: Path) -> list[str]:
        """Return the command of its process."""
        if self.arguments[0] == "pytest":
            return [sys.executable, "-m", *self.arguments]
        common = ("--device", device, "--out", str(out), "--work", str(work))
        limit = ("--budget-s", str(self.limit_s))
        return [sys.executable, "-m", "bench.gpu", *self.arguments, *common, *limit]


def plan(device: str, checkpoints: Sequence[str] = ()) -> list[Call]:
    """Return the calls for a card; for a CPU a miniature of each kind, which proves the plumbing.

    Args:
        device: a device of torch.
        checkpoints: folders of real models, whose rankings mean something.
    """
    if device == "cpu":
        small = ("--pairs", "96", "--precision", "fp32", "--most-batch", "64")
        return [
            _build("tiny"),
            _speed("tiny", "plain", *small, "--peak-size", "128"),
            _speed("demo", "plain", *small, "--peak-size", "128"),
            _memory("causal-tiny", "--pairs", "32"),
            _kernels("tiny", "--pairs", "96", "--precision", "fp32"),
            _start("tiny", "--precision", "fp32"),
            _two("tiny", "--pairs", "64", "--precision", "fp32", "--seconds", "0.2"),
        ]
    real = [_speed(folder, "plain") for folder in checkpoints]
    return [
        Call("tests", ("pytest", "tests/gpu", "-q"), "tests/gpu: parity, precisions, faults"),
        *(_build(name) for name in ("bge", "minilm")),
        *(_speed(name, "plain") for name in ("bge", "minilm")),
        *real,
        _speed("demo", "plain"),
        _memory("bge"),
        *(_kernels(name, "--pairs", "4000") for name in ("bge", "minilm")),
        *(_start(name) for name in ("bge", "minilm")),
        *(_two(name) for name in ("minilm", "bge")),
        *(call for name in ("causal-0.6b", "causal-4b") for call in (_build(name), _memory(name))),
        _speed("causal-0.6b", "plain", "--pairs", "2000"),
        _build("gte"),
        _speed("gte", "plain"),
        _speed("bge", "abstracts", "--pairs", "4000"),
        *(_speed("bge", mix, "--pairs", "2000") for mix in ("long", "duplicates", "tiny")),
        _speed("bge", "plain", "--precision", "fp16"),
        _speed("bge", "plain", "--precision", "fp8"),
        _speed("minilm", "abstracts"),
    ]


def _build(model: str) -> Call:
    about = f"{model}: random weights drawn and saved"
    return Call(f"build {model}", ("build", "--model", model), about)


def _speed(model: str, mix: str, *more: str) -> Call:
    # The order of arguments is that of the name, so that a call is known again.
    name = " ".join(["speed", model, mix, *_named(more)])
    arguments = ("speed", "--model", model, "--mix", mix, *more)
    about = "pairs/s, share of the matmul peak, top-10 overlap, ratio to the best peer"
    return Call(name, arguments, f"{model}, {mix}: {about}")


def _memory(model: str, *more: str) -> Call:
    about = f"{model}: memory of weights and of batches, in each precision"
    return Call(f"memory {model}", ("memory", "--model", model, *more), about)


def _kernels(model: str, *more: str) -> Call:
    about = f"{model}: the kernels that take most of the time"
    return Call(f"kernels {model}", ("kernels", "--model", model, *more), about)


def _start(model: str, *more: str) -> Call:
    about = f"{model}: seconds from a process's start to its first score"
    return Call(f"start {model}", ("start", "--model", model, *more), about)


def _two(model: str, *more: str) -> Call:
    about = f"{model}: two workers on one card, against one"
    return Call(f"two {model}", ("two", "--model", model, *more), about)


def _named(more: Sequence[str]) -> list[str]:
    return [more[more.index("--precision") + 1]] if "--precision" in more else []


def show(calls: Sequence[Call], *, device: str, out: Path, work: Path) -> str:
    """Return the plan as text: each call, what it measures, its limit and its command."""
    lines = []
    for number, call in enumerate(calls, 1):
        lines.append(f"{number:2}. {call.name}: at most {call.limit_s} s")
        lines.append(f"    measures {call.measures}")
        command = call.command(device=device, out=out, work=work)
        lines.append(f"    {shlex.join(['python', *command[1:]])}")
    total = sum(call.limit_s for call in calls)
    lines.append(f"{len(calls)} calls, at most {total / 60:.0f} minutes together.")
    return "\n".join(lines)


def run(
    calls: Sequence[Call], *, device: str, out: Path, work: Path, minutes: float | None
) -> list[str]:
    """Run the calls that the file has not got whole, and return those without an end.

    Args:
        calls: in their order.
        device: a device of torch.
        out: the rows; a call that is `done` there is not run again.
        work: where models are made.
        minutes: no call begins that may end later; None for no end.
    """
    ends = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    done = {row["call"] for row in read_rows(out) if row["kind"] == "done"}
    missing = []
    for call in calls:
        if call.name in done:
            continue
        if time.monotonic() + call.limit_s + GRACE_S > ends:
            missing.append(call.name)
            continue
        print(f"{call.name}: at most {call.limit_s} s", file=sys.stderr, flush=True)
        if not _run(call, device, out, work):
            missing.append(call.name)
    return missing


def _run(call: Call, device: str, out: Path, work: Path) -> bool:
    """Run one call, kill it when its time is over, and return whether it came to its end."""
    process = subprocess.Popen(
        call.command(device=device, out=out, work=work),
        cwd=_CHECKOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ},
    )
    began = time.monotonic()
    try:
        code = process.wait(call.limit_s + GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        Rows(out, call.name).write("killed", limit_s=call.limit_s + GRACE_S)
        return False
    finally:
        if process.poll() is None:  # interrupted
            os.killpg(process.pid, signal.SIGKILL)
    if call.arguments[0] == "pytest":
        took = round(time.monotonic() - began, 1)
        Rows(out, call.name).write("tests", exit_code=code, seconds=took)
    if code != 0:
        Rows(out, call.name).write("ended", exit_code=code)
    elif call.arguments[0] == "pytest":
        Rows(out, call.name).write("done")
    return code == 0
