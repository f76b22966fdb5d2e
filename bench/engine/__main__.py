"""Compare the engine with the back ends of Sentence Transformers on CPU, from text to logits.

    python -m bench.engine
    python -m bench.engine --checkpoint FOLDER --results bench/results/engine-cpu.json
    python -m bench.engine --model bge --precision bf16 --mix plain abstracts --seconds 0.3

Peers of a precision: torch, OpenVINO and ONNX Runtime, each at its best batch size, with as many
threads as the engine. All take turns in one run on the same pairs. Ratios are of time on the
clock, which needs a quiet machine, and of CPU time. Absolute rates depend on the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.engine.comparison import Comparison, Workload, compare
from bench.engine.exports import Exports
from bench.engine.peers import TorchPeer, peers_of
from bench.engine.report import as_json, sides_table, silence_transformers, table
from bench.engine.shapes import SHAPES, Shape, make_checkpoint, shape_of
from bench.engine.start import seconds_to_first_row
from bench.workload import MIXES, Corpus, Mix, build_pairs, read_corpus
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer
from worker.models import use_cores

_DEMO = "demo"
_BATCHES = [1, 2, 4, 8, 16, 32, 64]
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
_MOST_PAIRS = 1024

# All layers of a model cost the same, so that some of a large one's give the same ratios. The
# tokenizers made here know fewer words than bge has.
_SHORTENED: dict[str, dict[str, int]] = {
    "bge": {"n_layers": 6, "vocabulary": 16_000},
    "gte": {"n_layers": 10},
}

_LENGTHS: tuple[Mix, ...] = ("plain", "abstracts", "full")
_LARGE_LENGTHS: tuple[Mix, ...] = ("plain", "abstracts")
_OTHERS: tuple[Mix, ...] = ("duplicates", "long", "tiny")

# Timed rounds of all sides together take so many times the seconds of one round of torch in fp32.
_ROUNDS_OF_SECONDS = 8


@dataclass(frozen=True)
class Subject:
    """One model of a run, and the cells of its table.

    Attributes:
        checkpoint: its folder; None for random weights, which are made.
    """

    name: str
    shape: Shape
    checkpoint: Path | None
    cells: list[tuple[Precision, Mix]]


def main() -> None:
    """Compare on the models, mixes and precisions of the command line."""
    options = _parse()
    use_cores()
    silence_transformers()
    corpus = read_corpus()
    rows: list[Comparison] = []
    starts = {_DEMO: seconds_to_first_row(_DEMO)}
    for subject in _subjects(options):
        with TemporaryDirectory() as work:
            folder = subject.checkpoint or make_checkpoint(
                subject.shape, Path(work, "model"), corpus.sentences
            )
            for row in comparisons(subject, folder, Path(work), corpus, options.seconds):
                print(table([row]).splitlines()[-1], file=sys.stderr)
                rows.append(row)
            starts[subject.name] = seconds_to_first_row(str(folder))
        if options.results:
            facts = {"text": corpus.source, "seconds_to_first_row": starts}
            options.results.write_text(as_json(rows, **facts) + "\n")
    print(table(rows), sides_table(rows), _start_table(starts), sep="\n\n")


def comparisons(
    subject: Subject, folder: Path, work: Path, corpus: Corpus, seconds: float
) -> Iterator[Comparison]:
    """Yield the comparisons of one model; each precision's models are loaded once."""
    exports = Exports(folder, work, build_pairs(corpus, "plain", 16, seed=2))
    reference = TorchPeer(folder, "cpu", "fp32")
    mixes = dict.fromkeys(mix for _, mix in subject.cells)
    workloads = {
        mix: Workload.fitting(mix, build_pairs(corpus, mix, _MOST_PAIRS), reference, seconds)
        for mix in mixes
    }
    del reference
    for precision in dict.fromkeys(precision for precision, _ in subject.cells):
        scorer = Scorer.load(folder, precision=precision)
        peers = peers_of(exports, precision)
        for mix in (mix for each, mix in subject.cells if each == precision):
            yield compare(
                subject.shape,
                scorer,
                peers,
                workloads[mix],
                model=subject.name,
                precision=precision,
                batches=_BATCHES,
                seconds=_ROUNDS_OF_SECONDS * seconds,
            )


def _subjects(options: argparse.Namespace) -> list[Subject]:
    subjects = []
    for name in options.model:
        shape, title = SHAPES[name], SHAPES[name].like.partition("/")[2]
        if name in _SHORTENED and not options.all_layers:
            shape = replace(shape, **_SHORTENED[name])
            title = f"{title}, {shape.n_layers} of {SHAPES[name].n_layers} layers"
        cells = _cells(options, _LARGE_LENGTHS if name in _SHORTENED else _LENGTHS)
        if name == "minilm" and not options.mix and "bf16" in options.precision:
            cells += [("bf16", mix) for mix in _OTHERS]
        subjects.append(Subject(title, shape, None, cells))
    for folder in options.checkpoint:
        cells = _cells(options, _LENGTHS)
        subjects.append(Subject(folder.resolve().name, shape_of(folder), folder, cells))
    return subjects


def _cells(options: argparse.Namespace, mixes: tuple[Mix, ...]) -> list[tuple[Precision, Mix]]:
    return [(precision, mix) for precision in options.precision for mix in (options.mix or mixes)]


def _start_table(starts: dict[str, float]) -> str:
    lines = ["| model | from `rankmill run` to the first committed row |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {took:.1f} s |" for name, took in starts.items())])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", nargs="*", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--checkpoint", nargs="+", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--mix", nargs="+", choices=MIXES, help="default: by model")
    parser.add_argument("--precision", nargs="+", choices=_PRECISIONS, default=list(_PRECISIONS))
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of one round of torch in fp32 (default 1)"
    )
    parser.add_argument("--all-layers", action="store_true", help="of bge and gte too: slow")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    missing = [name for name in ("openvino", "nncf", "onnxruntime", "onnx") if not find_spec(name)]
    if missing:
        parser.error(f"{', '.join(missing)}: not installed; run make install-bench")
    for folder in options.checkpoint:
        if not (folder / "config.json").is_file():
            parser.error(f"--checkpoint {folder}: no config.json there")
    return options


if __name__ == "__main__":
    main()
