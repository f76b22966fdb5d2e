"""Measure one CUDA device in calls of three minutes each; every row is kept when it is measured.

    python -m bench.gpu                     # with a card: run the plan; without: print it
    python -m bench.gpu plan                # print it
    python -m bench.gpu run --minutes 25    # the calls that have no end in the file yet
    python -m bench.gpu run --device cpu    # a miniature, which proves that all of it runs
    python -m bench.gpu report              # tables, and which bars are met
    python -m bench.gpu speed --model bge --mix plain    # one call

Needs torch, transformers, sentence-transformers, tokenizers and numpy. Rows go to --out as JSON
lines. A call that is killed leaves those it has measured, and `run` makes it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench.gpu.plan import plan, run, show
from bench.gpu.report import report
from bench.gpu.rows import Budget, Rows, read_rows
from bench.workload import MIXES

_OUT = Path(__file__).parents[1] / "results" / "gpu.jsonl"
_WORK = Path(tempfile.gettempdir(), f"rankmill-bench-gpu-{os.getuid()}")

# Chosen so that the best peer needs some ten seconds a round on an H100.
_PAIRS = {"minilm": 40_000, "minilm-l12": 20_000, "demo": 40_000}
_OTHER_PAIRS = 12_000
_CALLS = ("build", "speed", "memory", "kernels", "start", "two")


def main() -> None:
    """Print or run the plan, or make one of its calls."""
    options = _parse()
    if options.verb in _CALLS:
        _call(options)
        return
    if options.verb == "report":
        print(report(read_rows(options.out)))
        return
    verb = options.verb or ("run" if options.run or _has_card() else "plan")
    calls = plan(options.device, options.checkpoint)
    if options.only:
        calls = [call for call in calls if any(map(call.name.startswith, options.only))]
    if verb == "plan":
        print(show(calls, device=options.device, out=options.out, work=options.work))
        return
    where = {"device": options.device, "out": options.out, "work": options.work}
    missing = run(calls, **where, minutes=options.minutes)
    print(report(read_rows(options.out)))
    if missing:
        print(f"not measured: {', '.join(missing)}; the same command goes on with them")
        sys.exit(1)


def _has_card() -> bool:
    import torch

    return torch.cuda.is_available()


def _call(options: argparse.Namespace) -> None:
    """Make one call within its seconds."""
    call = " ".join([options.verb, options.model])
    if options.verb == "speed":
        call += f" {options.mix}" + (f" {options.precision}" if options.precision else "")
    rows = Rows(options.out, call)
    budget = Budget(options.budget_s, rows)
    with budget.kept():
        try:
            _measure(options, rows, budget)
        except Exception as error:
            line = str(error).strip().partition("\n")[0]
            rows.write("failed", what=call, error=f"{type(error).__name__}: {line}")
            sys.exit(1)
        rows.write("done")


def _measure(options: argparse.Namespace, rows: Rows, budget: Budget) -> None:
    import torch

    from bench.engine.report import machine, silence_transformers
    from bench.gpu import checkpoints, kernels, memory, processes, speed
    from bench.workload import build_pairs, read_corpus
    from rankmill.devices.cores import n_usable_cores
    from rankmill.devices.nvml import read_cards

    torch.set_num_threads(n_usable_cores())
    silence_transformers()
    corpus, device = read_corpus(), options.device
    is_random = checkpoints.has_random_weights(options.model)
    rows.write(
        "machine",
        **machine(),
        cuda=torch.version.cuda,
        driver=read_cards().driver,
        text=corpus.source,
        random_weights=is_random,
    )
    folder = checkpoints.checkpoint(options.model, options.work, corpus, device)
    if options.verb == "build":
        return
    precision = options.precision or "bf16"
    n_pairs = options.pairs or _PAIRS.get(options.model, _OTHER_PAIRS)
    measured = {"device": device, "rows": rows, "budget": budget}
    if options.verb == "start":
        processes.measure_start(folder, precision=precision, **measured)
    elif options.verb == "two":
        of_two = {"n_pairs": n_pairs, "seconds": options.seconds}
        processes.measure_two(folder, precision=precision, **of_two, **measured)
    elif options.verb == "memory":
        pairs = build_pairs(corpus, "plain", min(n_pairs, 4096))
        precisions = [options.precision] if options.precision else ["bf16", "fp32"]
        memory.measure_memory(folder, pairs, precisions=precisions, **measured)
    elif options.verb == "kernels":
        pairs = build_pairs(corpus, "plain", n_pairs)
        kernels.measure_kernels(folder, pairs, precision=precision, **measured)
    else:
        subject = speed.Subject(
            folder=folder,
            shape=checkpoints.shape(options.model, folder),
            pairs=build_pairs(corpus, options.mix, n_pairs),
            device=device,
            precision=precision,
            batches=[each for each in speed.BATCHES if each <= options.most_batch],
            peak_size=options.peak_size,
        )
        of_peers = "bf16" if precision == "fp8" else precision
        peers = speed.peers_of(folder, device, of_peers)
        speed.measure_speed(subject, peers, rows, budget)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", nargs="?", choices=["plan", "run", "report", *_CALLS])
    parser.add_argument("--run", action="store_true", help="run the plan, with or without a card")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=_OUT, metavar="FILE")
    parser.add_argument("--work", type=Path, default=_WORK, metavar="FOLDER")
    of_plan = parser.add_argument_group("plan and run")
    of_plan.add_argument("--minutes", type=float, help="begin no call that may end later")
    of_plan.add_argument("--only", nargs="+", metavar="NAME", help="calls that begin so")
    of_plan.add_argument("--checkpoint", nargs="+", default=[], metavar="FOLDER")
    of_call = parser.add_argument_group("one call")
    of_call.add_argument("--model", default="bge", help="a name of the plan, or a folder")
    of_call.add_argument("--mix", choices=MIXES, default="plain")
    of_call.add_argument("--precision", help="default bf16; memory: bf16 and fp32")
    of_call.add_argument("--pairs", type=int)
    of_call.add_argument("--most-batch", type=int, default=2048)
    of_call.add_argument("--peak-size", type=int)
    of_call.add_argument("--seconds", type=float, default=10.0, help="two: of scoring")
    of_call.add_argument("--budget-s", type=float, default=180.0)
    options = parser.parse_args()
    options.out, options.work = options.out.absolute(), options.work.absolute()
    return options


if __name__ == "__main__":
    main()
