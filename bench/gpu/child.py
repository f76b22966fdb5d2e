"""One worker's engine in a process of its own: `python -m bench.gpu.child FOLDER`.

It prints a line when it has scored its first pairs. For each line on stdin, a number of seconds, it
then scores pairs for that long, and prints how many.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Load, score, and go on as asked."""
    options = _parse()
    began = time.perf_counter()
    from bench.gpu.speed import score
    from bench.workload import build_pairs, read_corpus
    from worker.engine.scorer import Scorer

    imported = time.perf_counter()
    scorer = Scorer.load(options.folder, device=options.device, precision=options.precision)
    loaded = time.perf_counter()
    pairs = build_pairs(read_corpus(), "plain", options.pairs)
    score(scorer, pairs[:32])
    scored = time.perf_counter()
    times = {"import_s": imported - began, "load_s": loaded - imported}
    _say({**times, "first_score_s": scored - loaded})
    score(scorer, pairs)
    for line in sys.stdin:
        started, n_pairs = time.perf_counter(), 0
        while n_pairs == 0 or time.perf_counter() - started < float(line):
            n_pairs += len(score(scorer, pairs))
        _say({"n_pairs": n_pairs, "seconds": time.perf_counter() - started})


def _say(facts: dict[str, float]) -> None:
    print(json.dumps(facts), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.child", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--pairs", type=int, default=4096)
    return parser.parse_args()


if __name__ == "__main__":
    main()
