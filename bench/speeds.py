"""Measure how fast this machine scores with the whole model of each row of docs/models.md.

    python -m bench.speeds --results bench/results/speeds-cpu.json
    python -m bench.speeds --shape minilm qwen3-0.6b

Weights are random, in the shapes of published models with all their layers. A model of more than a
billion parameters is measured with two and with four layers; the time of the others follows from
the difference. The vocabulary is that of the benchmark's tokenizer: it costs memory, not time.
Pairs are those of the plain mix, 40 of one query. Times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import AddedToken

from bench import families
from bench.decoders import make_decoder
from bench.engine import shapes
from bench.engine.report import machine, silence_transformers
from bench.engine.shapes import Shape, make_checkpoint
from bench.engine.sides import Pairs, engine_side, timed
from bench.workload import Corpus, build_pairs, read_corpus
from rankmill.models.recipe import Recipe
from rankmill.models.recipes import registry
from worker.engine.scorer import Scorer

_N_PAIRS, _N_WARM = 40, 8
_FEWEST_ROUNDS, _SHORT_S, _LONG_S = 3, 2.0, 30.0
_FEW_LAYERS = (2, 4)


@dataclass(frozen=True)
class Language:
    """The shape of a reranker that is a language model.

    Attributes:
        like: the model's hub id.
        recipe: of the registry.
        sizes: settings of its config.
        measured: the numbers of layers that are measured; all of them if there is one.
    """

    like: str
    model_type: str
    recipe: str
    n_layers: int
    sizes: Mapping[str, Any]
    measured: tuple[int, ...] = ()


def _decoder(
    like: str, kind: str, recipe: str, layers: int, *numbers: int, large: bool = False, **more: Any
) -> Language:
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    sizes = dict(zip((*names, "head_dim"), numbers, strict=True)) | more
    return Language(like, kind, recipe, layers, sizes, _FEW_LAYERS if large else (layers,))


def _t5(like: str, kind: str, recipe: str, ffn: int) -> Language:
    sizes = {"d_model": 768, "d_kv": 64, "d_ff": ffn, "num_heads": 12, "num_layers": 12}
    return Language(like, kind, recipe, 12, sizes, (12,))


def _whole(family: str, **settings: Any) -> Shape:
    """Return a shape of bench/families.py with twelve layers or those of the settings."""
    shape = families.SHAPES[family]
    n_layers = settings.get("n_layers", 12)
    return replace(shape, n_layers=n_layers, settings=dict(shape.settings) | settings)


# docs/models.json names these shapes.
SHAPES: dict[str, Shape | Language] = {
    "tinybert": Shape("cross-encoder/ms-marco-TinyBERT-L2-v2", "bert", 2, 128, 512, 2, 16_000, 512),
    "minilm": shapes.SHAPES["minilm"],
    "xlm-roberta-base": Shape(
        "BAAI/bge-reranker-base", "xlm-roberta", 12, 768, 3072, 12, 16_000, 512
    ),
    "xlm-roberta-large": replace(shapes.SHAPES["bge"], vocabulary=16_000),
    "ettin-17m": replace(
        shapes.SHAPES["gte"],
        like="cross-encoder/ettin-reranker-17m-v1",
        n_layers=7,
        hidden=256,
        ffn=384,
        heads=4,
    ),
    "modernbert-base": shapes.SHAPES["gte"],
    "electra-base": _whole("electra"),
    "distilbert-base": _whole("distilbert", n_layers=6),
    "albert-base": _whole("albert"),
    "mpnet-base": _whole("mpnet"),
    "deberta-xsmall": _whole("deberta-small"),
    "eurobert-210m": _whole("eurobert"),
    "gte-base": _whole("gte"),
    "qwen2-0.5b": _decoder(
        "mixedbread-ai/mxbai-rerank-base-v2", "qwen2", "mxbai-v2", 24, 896, 4864, 14, 2, 64
    ),
    "qwen3-0.6b": _decoder(
        "Qwen/Qwen3-Reranker-0.6B", "qwen3", "qwen3-reranker", 28, 1024, 3072, 16, 8, 128
    ),
    "qwen3-1.7b": _decoder(
        "zeroentropy/zerank-1-small", "qwen3", "zerank-1", 28, 2048, 6144, 16, 8, 128, large=True
    ),
    "gemma-2b": _decoder(
        "BAAI/bge-reranker-v2-gemma",
        "gemma",
        "bge-gemma",
        18,
        *(2048, 16_384, 8, 1, 256),
        large=True,
    ),
    "t5-base": _t5("castorini/monot5-base-msmarco", "t5", "monot5", 3072),
    "mt5-base": _t5("unicamp-dl/mt5-base-mmarco-v2", "mt5", "mono-mt5", 2048),
}


def main() -> None:
    """Print a row for each shape, and write them all."""
    options = _parse()
    torch.set_num_threads(1)
    silence_transformers()
    corpus = read_corpus()
    pairs = build_pairs(corpus, "plain", _N_PAIRS)
    rows = []
    for name in options.shape:
        rows.append({"shape": name} | measured(SHAPES[name], pairs, corpus))
        print(json.dumps(rows[-1]), flush=True)
        if options.results:
            facts = {"machine": machine(), "mix": "plain", "n_pairs": _N_PAIRS, "results": rows}
            options.results.write_text(json.dumps(facts, indent=2) + "\n")


def measured(shape: Shape | Language, pairs: Pairs, corpus: Corpus) -> dict[str, Any]:
    """Return the facts and the speed of a shape."""
    depths = shape.measured if isinstance(shape, Language) else (shape.n_layers,)
    facts: dict[str, Any] = {"like": shape.like, "n_layers": shape.n_layers}
    seconds = {}
    for n_layers in depths:
        with TemporaryDirectory() as work:
            folder, recipe = _write(shape, n_layers, Path(work, "model"), corpus)
            scorer = Scorer.load(folder, recipe=recipe)
            side = engine_side(scorer)
            side.score(pairs[:_N_WARM])
            rounds: list[float] = []
            while sum(rounds) < _LONG_S and (
                len(rounds) < _FEWEST_ROUNDS or sum(rounds) < _SHORT_S
            ):
                rounds.append(timed(side.score, pairs, "cpu")[0].core_s)
            seconds[n_layers] = median(rounds)
            stats, info = scorer.stats, scorer.info
            facts |= {"path": info.path, "precision": info.precision}
            facts["tokens_per_pair"] = round(stats.n_tokens / stats.n_pairs, 1)
    return facts | {
        "measured_layers": list(depths),
        "core_s": {str(depth): round(took, 4) for depth, took in seconds.items()},
        "pairs_per_core_s": len(pairs) / with_layers(seconds, shape.n_layers),
    }


def with_layers(seconds: Mapping[int, float], n_layers: int) -> float:
    """Return the seconds with `n_layers`, on the line through those with other numbers."""
    if n_layers in seconds:
        return seconds[n_layers]
    few, more = sorted(seconds)
    return seconds[few] + (seconds[more] - seconds[few]) / (more - few) * (n_layers - few)


def _write(
    shape: Shape | Language, n_layers: int, folder: Path, corpus: Corpus
) -> tuple[Path, Recipe | None]:
    if isinstance(shape, Shape):
        return make_checkpoint(shape, folder, corpus.sentences), None
    published = next(each.recipe for each in registry() if each.recipe.name == shape.recipe)
    # The benchmark's tokenizer has other ids.
    recipe = replace(published, yes_id=None, no_id=None)
    if shape.model_type in ("t5", "mt5"):
        return _make_t5(shape, recipe, folder, corpus), recipe
    make_decoder(folder, shape.model_type, corpus, **shape.sizes, num_hidden_layers=n_layers)
    return folder, recipe


def _make_t5(shape: Language, recipe: Recipe, folder: Path, corpus: Corpus) -> Path:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    tokenizer = shapes.tokenizer_of("t5", corpus.sentences)
    answers = [AddedToken(text, normalized=False) for text in (recipe.yes, recipe.no) if text]
    tokenizer.add_tokens(answers)
    tokenizer.model_max_length = 512
    sizes = dict(shape.sizes) | {"vocab_size": len(tokenizer), "decoder_start_token_id": 0}
    config = AutoConfig.for_model(shape.model_type, **sizes, pad_token_id=0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.speeds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--results", type=Path, help="a file for all figures, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
