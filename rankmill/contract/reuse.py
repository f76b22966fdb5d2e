"""Reuse of an earlier job's scores: when it is allowed, and their form of 8 or 20 bytes a row."""

from __future__ import annotations

import numpy as np

from rankmill.contract.base import Contract
from rankmill.contract.job import JobOptions
from rankmill.contract.plan import PASSAGE_COLUMNS
from rankmill.contract.results import Scoring

# What decides a score besides the texts. The tokenizer's digest covers the model's configuration
# and its templates. Path and device count because they round differently.
_FINGERPRINT = {
    "weights_sha256": "the weights",
    "tokenizer_sha256": "the tokenizer, configuration or template",
    "architecture": "the architecture",
    "recipe_sha256": "the recipe: prompt, template or answer tokens",
    "max_length": "max_length",
    "precision": "the precision",
    "path": "the engine path",
    "device": "the kind of device",
}
_CUTS = (
    *("long_docs", "passage_tokens", "passage_stride"),
    *("max_query_tokens", "max_document_tokens"),
)
_SHOWN = ("max_length", "precision", "path", "device")


class KnownScores(Contract):
    """`known.json`: the job whose scores are in `known`, and how they were computed."""

    job_id: str
    source_uri: str
    source_job_id: str
    scoring: Scoring
    n_known: int


def fingerprint(scoring: Scoring) -> tuple[object, ...]:
    """Return a value that is equal for two scorings if equal pairs get equal scores."""
    return tuple(getattr(scoring, name) for name in _FINGERPRINT)


def difference(then: Scoring, now: Scoring) -> str | None:
    """Return why scores of `then` cannot be reused now, for people; None if they can."""
    names = [name for name in _FINGERPRINT if getattr(then, name) != getattr(now, name)]
    if not names:
        return None
    differences = [
        f"{_FINGERPRINT[name]} ({getattr(then, name)} then, {getattr(now, name)} now)"
        if name in _SHOWN
        else _FINGERPRINT[name]
        for name in names
    ]
    return f"the earlier job differs in {', '.join(differences)}"


def text_difference(then: JobOptions, now: JobOptions) -> str | None:
    """Return why two jobs cut texts in other ways, for people; None if they do not."""
    names = [name for name in _CUTS if getattr(then, name) != getattr(now, name)]
    if not names:
        return None
    values = (f"{name} ({getattr(then, name)} then, {getattr(now, name)} now)" for name in names)
    return f"the earlier job differs in {', '.join(values)}"


def remarks(then: Scoring, now: Scoring) -> tuple[str, ...]:
    """Return differences that may change the last bits of a score, for people."""
    lines = []
    if not (then.deterministic and now.deterministic):
        lines.append("the model is not deterministic here: another run might round differently")
    for name in sorted(then.versions.keys() | now.versions.keys()):
        old, new = then.versions.get(name, "none"), now.versions.get(name, "none")
        if name != "pyarrow" and old != new:
            lines.append(f"{name} was {old} and is {new}, which may round differently")
    return tuple(lines)


def known_type(*, has_passages: bool) -> np.dtype:
    """Return the record of a row in `known`: its packed score, and PASSAGE_COLUMNS if it has."""
    passages = [(name, "<i4") for name in PASSAGE_COLUMNS] if has_passages else []
    return np.dtype([("score", "<u8"), *passages])


def pack(logits: np.ndarray, n_tokens: np.ndarray, truncated: np.ndarray) -> np.ndarray:
    """Return scores as uint64 (n,), never 0, which means an unknown score.

    Args:
        logits: float32 (n,).
        n_tokens: int32 (n,), below 2**30.
        truncated: bool (n,).
    """
    low = n_tokens.astype(np.uint64) << np.uint64(2) | truncated.astype(np.uint64) << np.uint64(1)
    high = logits.astype("<f4").view("<u4").astype(np.uint64) << np.uint64(32)
    packed: np.ndarray = high | low | np.uint64(1)
    return packed


def unpack(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the logits, n_tokens and truncated that `pack` was given."""
    logits = (packed >> np.uint64(32)).astype("<u4").view("<f4")
    low = packed & np.uint64(2**32 - 1)
    return logits, (low >> np.uint64(2)).astype(np.int32), (low & np.uint64(2)) != 0
