"""Compare LLM reranking with a shared prefix with Sentence Transformers at its best batch size.

    python -m bench.prefix
    python -m bench.prefix --layers 4 --documents 40 --tokens 400 --precision bf16
    python -m bench.prefix --all-layers --documents 16 --tokens 80 --precision bf16

The model has random weights in the shape of Qwen3-0.6B, by default with fewer layers, and the
prompt of Qwen3-Reranker. A query has many documents. The sides take turns on the same pairs. Times
are CPU seconds of one thread, which other work on the machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bench.decoders import make_decoder
from bench.engine.peers import TorchPeer
from bench.engine.report import silence_transformers
from bench.engine.sides import Pairs, Side, cheapest, engine_side, run_in_turns, timed
from bench.workload import Corpus, read_corpus
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

_LAYERS, _FEW_LAYERS = 28, 6
_HIDDEN, _FFN, _HEADS, _KEY_HEADS, _HEAD_DIM = 1024, 3072, 16, 8, 128
_MAX_LENGTH = 1024
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_BATCHES = [8, 16, 32]
_SAMPLE = 32
_BAR = 1.6

PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that "
    "answer the query\n<Query>: {{ messages[-2].content }}\n<Document>: "
    "{{ messages[-1].content }}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
_HEAD = (
    "layers",
    "documents a query",
    "tokens a document",
    "tokens a pair, computed",
    "precision",
    "pairs a core second",
    "times Sentence Transformers, batch",
    "times fewer FLOPs",
    "largest logit difference",
)


def main() -> None:
    """Print a row for each length and precision, and what the arithmetic says of a GPU."""
    options = _parse()
    n_layers = _LAYERS if options.all_layers else options.layers
    torch.set_num_threads(1)
    silence_transformers()
    corpus = read_corpus()
    print(f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}", sep="\n")
    with TemporaryDirectory() as work:
        folder = make_decoder(
            Path(work, "model"),
            "qwen3",
            corpus,
            max_length=_MAX_LENGTH,
            chat_template=PROMPT,
            vocab_size=151_936,
            hidden_size=_HIDDEN,
            intermediate_size=_FFN,
            num_hidden_layers=n_layers,
            num_attention_heads=_HEADS,
            num_key_value_heads=_KEY_HEADS,
            head_dim=_HEAD_DIM,
        )
        for n_tokens in options.tokens:
            pairs = pairs_of(corpus, folder, n_tokens, options.documents)
            for precision in options.precision:
                cells = compare(folder, pairs, precision, n_layers)
                facts = (n_layers, len(pairs), n_tokens, *cells)
                print(f"| {' | '.join(map(str, facts))} |", flush=True)
    print(f"\nThe bar is {_BAR} times at 80 tokens.")


def compare(folder: Path, pairs: Pairs, precision: Precision, n_layers: int) -> list[str]:
    """Return the cells of a row."""
    scorer = Scorer.load(folder, precision=precision)
    assert scorer.info.path == "prefix"
    peer = TorchPeer(folder, "cpu", precision)
    # The longest documents of a group are padded to one length; so are those of a sample.
    sample = sorted(pairs, key=lambda pair: len(pair[1]))[:: max(1, len(pairs) // _SAMPLE)]
    batch = cheapest(
        _BATCHES, lambda size: timed(lambda some: peer.predict(some, size), sample, "cpu")[0].core_s
    )
    sides = [
        engine_side(scorer),
        Side(peer.name, lambda some: peer.predict(some, batch), batch),
    ]
    logits = run_in_turns(sides, pairs, 0, "cpu")
    ours, theirs = (side.median.core_s for side in sides)
    window = PairWindow([query for query, _ in pairs], [document for _, document in pairs])
    encoded = scorer._encoder.encode(window)
    n_computed = encoded.n_computed(np.arange(len(encoded.lengths)))
    return [
        f"{encoded.lengths.mean():.0f}, {n_computed / len(pairs):.0f}",
        precision,
        f"{len(pairs) / ours:,.2f}",
        f"{theirs / ours:.2f}, {batch}",
        f"{flops_saved(encoded, n_layers):.2f}",
        f"{np.abs(logits[0] - logits[1]).max():.1e}",
    ]


def flops_saved(encoded: EncodedWindow, n_layers: int) -> float:
    """Return the FLOPs of whole pairs without padding, over those with a prefix computed once.

    Linear layers: two per weight and token. Attention: 4 * heads * head_dim per query and key. The
    last layer computes queries, keys and values of every token, and the rest of the last ones; that
    is counted for the shared prefix only. Left out: embeddings, norms, activations, the head.
    """
    prefixes = encoded.prefixes
    assert prefixes is not None
    qkv = _HIDDEN * _HEAD_DIM * (_HEADS + 2 * _KEY_HEADS)
    rest = _HIDDEN * _HEAD_DIM * _HEADS + 3 * _HIDDEN * _FFN
    a_key = 4 * _HEADS * _HEAD_DIM
    lengths = encoded.lengths.astype(float)
    keys = (lengths * (lengths + 1) / 2).sum()
    whole = n_layers * (2 * (qkv + rest) * lengths.sum() + a_key * keys)
    n_computed = encoded.n_computed(np.arange(len(lengths)))
    first = prefixes.shared[np.unique(prefixes.of_pair, return_index=True)[1]].astype(float)
    shared = prefixes.shared.astype(float)
    kept_keys = keys - (shared * (shared + 1) / 2).sum() + (first * (first + 1) / 2).sum()
    body = (n_layers - 1) * (2 * (qkv + rest) * n_computed + a_key * kept_keys)
    last = 2 * qkv * n_computed + 2 * rest * len(lengths) + a_key * lengths.sum()
    return float(whole / (body + last))


def pairs_of(corpus: Corpus, folder: Path, n_tokens: int, n_documents: int) -> Pairs:
    """Return a query with documents of half to one and a half times so many tokens."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(1)
    lengths = rng.integers(n_tokens // 2, 3 * n_tokens // 2, n_documents)
    documents = []
    for length in lengths:
        start = int(rng.integers(0, len(corpus.words) - length))
        ids = tokenizer(" ".join(corpus.words[start : start + length]))["input_ids"][:length]
        documents.append(tokenizer.decode(ids))
    return [(corpus.queries[0], document) for document in documents]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.prefix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokens", nargs="+", type=int, default=[80, 400])
    parser.add_argument("--precision", nargs="+", choices=_PRECISIONS, default=list(_PRECISIONS))
    parser.add_argument("--documents", type=int, default=100, help="a query (default 100)")
    parser.add_argument("--layers", type=int, default=_FEW_LAYERS, help="default 6")
    parser.add_argument("--all-layers", action="store_true", help=f"{_LAYERS}, as published")
    return parser.parse_args()


if __name__ == "__main__":
    main()
