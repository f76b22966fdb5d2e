"""Compare the packed path of each family with the padded path and with Sentence Transformers.

    python -m bench.families
    python -m bench.families --family deberta gte --mix plain --precision fp32

Weights are random, in the shapes of published models with three layers each. The packed path
computes one row of the last layer, which is a larger share of three layers than of twelve. The
sides take turns on the same pairs. Times are CPU seconds of one thread, which other work on the
machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch

from bench.engine.comparison import spread
from bench.engine.peers import TorchPeer
from bench.engine.report import silence_transformers
from bench.engine.shapes import Shape, make_checkpoint
from bench.engine.sides import Pairs, Side, cheapest, engine_side, run_in_turns, timed
from bench.workload import MIXES, build_pairs, read_corpus
from worker.engine.families import loader
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer

_BASE = {"n_layers": 3, "hidden": 768, "ffn": 3072, "heads": 12, "vocabulary": 16_000}
_DEBERTA = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_SMALL = _BASE | {"hidden": 384, "ffn": 1536, "heads": 6}
_DISTILBERT = {"dim": 768, "n_heads": 12, "n_layers": 3, "hidden_dim": 3072}


def _shape(like: str, model_type: str, sizes: dict[str, int] = _BASE, **settings: object) -> Shape:
    return Shape(like, model_type, **sizes, max_length=512, settings=settings)


SHAPES = {
    "electra": _shape("cross-encoder/ms-marco-electra-base", "electra", embedding_size=768),
    "distilbert": _shape("a DistilBERT base", "distilbert", **_DISTILBERT),
    "albert": _shape("an ALBERT base", "albert", embedding_size=128),
    "mpnet": _shape("an MPNet base", "mpnet", max_position_embeddings=514, pad_token_id=1),
    "deberta-small": _shape(
        "mixedbread-ai/mxbai-rerank-xsmall-v1", "deberta-v2", _SMALL, **_DEBERTA
    ),
    "deberta": _shape("mixedbread-ai/mxbai-rerank-base-v1", "deberta-v2", **_DEBERTA),
    "eurobert": _shape(
        "EuroBERT/EuroBERT-210m", "eurobert", bos_token_id=1, eos_token_id=2, mask_token_id=3
    ),
    "gte": _shape("Alibaba-NLP/gte-multilingual-reranker-base", "gte"),
}

_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_BATCHES = [8, 16, 32]
_MOST_PAIRS = 512
_HEAD = (
    "like",
    "mix",
    "tokens a pair",
    "precision",
    "pairs a core second",
    "times padded",
    "times Sentence Transformers, batch",
    "largest logit difference",
)


def main() -> None:
    """Print a row for each family, mix and precision."""
    options = _parse()
    torch.set_num_threads(1)
    silence_transformers()
    corpus = read_corpus()
    print(f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}", sep="\n")
    for name in options.family:
        with TemporaryDirectory() as work:
            folder = make_checkpoint(SHAPES[name], Path(work, "model"), corpus.sentences)
            for mix in options.mix:
                pairs = spread(build_pairs(corpus, mix, _MOST_PAIRS), options.blocks)
                for precision in options.precision:
                    cells = compare(folder, pairs, precision, options.seconds)
                    print(f"| {SHAPES[name].like} | {mix} | {' | '.join(cells)} |", flush=True)


def compare(folder: Path, pairs: Pairs, precision: Precision, seconds: float) -> Iterator[str]:
    """Yield the cells of a row."""
    exact = TorchPeer(folder, "cpu", "fp32").predict(pairs, _BATCHES[0])
    packed = Scorer.load(folder, precision=precision)
    with _without_packed_families():
        padded = Scorer.load(folder, precision=precision)
    assert (packed.info.path, padded.info.path) == ("packed", "padded")
    peer = TorchPeer(folder, "cpu", precision)
    batch = cheapest(
        _BATCHES, lambda size: timed(lambda some: peer.predict(some, size), pairs, "cpu")[0].core_s
    )
    sides = [
        engine_side(packed),
        engine_side(padded),
        Side(peer.name, lambda some: peer.predict(some, batch), batch),
    ]
    logits = run_in_turns(sides, pairs, seconds, "cpu")
    ours, *others = (side.median.core_s for side in sides)
    yield f"{packed.stats.n_tokens / packed.stats.n_pairs:.0f}"
    yield precision
    yield f"{len(pairs) / ours:,.1f}"
    yield f"{others[0] / ours:.2f}"
    yield f"{others[1] / ours:.2f}, {batch}"
    yield f"{np.abs(logits[0] - exact).max():.1e}"


@contextmanager
def _without_packed_families() -> Iterator[None]:
    with mock.patch.object(loader, "family_of", lambda config: None):
        yield


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.families",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--family", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--mix", nargs="+", choices=MIXES, default=["plain", "abstracts"])
    parser.add_argument("--precision", nargs="+", choices=_PRECISIONS, default=list(_PRECISIONS))
    parser.add_argument("--blocks", type=int, default=4, help="of 8 pairs each (default 4)")
    parser.add_argument(
        "--seconds", type=float, default=0, help="of all timed rounds; three at least (default)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
