"""Text in, exact fp32 logits out: the one seam between the engine and everything else.

    scorer = Scorer.load(folder)
    for scores in scorer.score(windows): ...

Windows go in as an iterable and their scores come out in the same order, so that an engine may
read and tokenize ahead of the device.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Activation = Literal["sigmoid", "none"]

# transformers gives a tokenizer without a stated limit this or more (VERY_LARGE_INTEGER).
_NO_LIMIT = int(1e20)


@dataclass(frozen=True)
class PairWindow:
    """Some pairs to score: `queries[i]` with `documents[i]`; equal lengths, non-empty text."""

    queries: list[str]
    documents: list[str]


@dataclass(frozen=True)
class WindowScores:
    """One entry a pair of the window, in its order.

    Attributes:
        logits: float32 (n,), the model's raw output; for two labels the log-odds of the second.
        n_tokens: int32 (n,), what the model saw, special tokens included.
        truncated: bool (n,), whether text was cut to fit `max_length`.
    """

    logits: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray


@dataclass(frozen=True)
class ScorerInfo:
    """What a scorer is made of, for manifests and `estimate`."""

    architecture: str
    path: str
    precision: str
    device: str
    max_length: int
    activation: Activation


@dataclass
class ScorerStats:
    """Running totals of a scorer's life."""

    n_pairs: int = 0
    n_tokens: int = 0
    device_busy_s: float = 0.0


class Scorer:
    """Any Hugging Face sequence-classification cross-encoder, in fp32, batches sorted by tokens."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        device: str,
        max_length: int,
        max_batch_tokens: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._max_batch_tokens = max_batch_tokens
        self.stats = ScorerStats()
        self.info = ScorerInfo(
            architecture=type(model).__name__,
            path="padded",
            precision="fp32",
            device=device,
            max_length=max_length,
            activation=_activation(model.config),
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
    ) -> Scorer:
        """Load safetensors weights from a local folder; never the network, never remote code.

        Raises:
            OSError: the folder lacks a config, weights or a tokenizer.
            ValueError: the model is no cross-encoder with one or two labels.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        if model.config.num_labels not in (1, 2):
            raise ValueError(
                f"{folder} has {model.config.num_labels} labels; a cross-encoder has one or two"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(
            model.eval().to(device),
            tokenizer,
            device=device,
            max_length=min(max_length or _NO_LIMIT, _model_limit(model.config, tokenizer)),
            max_batch_tokens=max_batch_tokens or 4096,
        )

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        """Yield the scores of each window, in order."""
        for window in windows:
            yield self._score_window(window)

    @torch.inference_mode()
    def _score_window(self, window: PairWindow) -> WindowScores:
        if not window.queries:
            none = np.empty(0, dtype=np.float32)
            return WindowScores(none, none.astype(np.int32), none.astype(bool))
        full = self._tokenizer(window.queries, window.documents, truncation=False, verbose=False)
        encoded = self._tokenizer(
            window.queries,
            window.documents,
            truncation="longest_first",
            max_length=self.info.max_length,
        )
        n_tokens = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int32)
        uncut = np.array([len(ids) for ids in full["input_ids"]], dtype=np.int32)
        self.stats.n_pairs += len(n_tokens)
        self.stats.n_tokens += int(n_tokens.sum())
        logits = np.empty(len(n_tokens), dtype=np.float32)
        for rows in _token_batches(n_tokens, self._max_batch_tokens):
            batch = self._tokenizer.pad(
                {key: [values[i] for i in rows] for key, values in encoded.items()},
                return_tensors="pt",
            ).to(self.info.device)
            started = time.perf_counter()
            logits[rows] = _single_logit(self._model(**batch).logits).cpu().numpy()
            self.stats.device_busy_s += time.perf_counter() - started
        return WindowScores(logits=logits, n_tokens=n_tokens, truncated=uncut > n_tokens)


def _token_batches(n_tokens: np.ndarray, max_batch_tokens: int) -> Iterator[np.ndarray]:
    """Rows longest first, cut into batches whose padded size stays within the budget."""
    order = np.argsort(-n_tokens, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_batch_tokens // int(n_tokens[order[start]]))
        yield order[start : start + size]
        start += size


def _single_logit(logits: torch.Tensor) -> torch.Tensor:
    """(n, 1) or (n, 2) to fp32 (n,); of two labels the difference, whose sigmoid is the softmax."""
    logits = logits.float()
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def _model_limit(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest input the model can take, in tokens."""
    positions = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"):
        positions -= config.pad_token_id + 1  # their positions start after the padding index
    return min(tokenizer.model_max_length, positions)


def _activation(config: Any) -> Activation:
    """What `CrossEncoder.predict` applies by default: the config's own word, else sigmoid.

    Sentence Transformers keeps it as the import path of a torch module, in two places over time.
    """
    stated = (getattr(config, "sentence_transformers", None) or {}).get("activation_fn") or getattr(
        config, "sbert_ce_default_activation_function", None
    )
    return "none" if stated and stated.endswith("Identity") else "sigmoid"
