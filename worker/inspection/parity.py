"""Compare a model's scores with those of Sentence Transformers' CrossEncoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rankmill.contract.inspection import Parity
from worker.engine.agreement import measure_agreement
from worker.engine.folder.refusal import silent
from worker.engine.values import PairWindow
from worker.shard.part import activate


class NoParity(Exception):
    """The reason why scores cannot be compared, in one line."""


def check_comparable() -> None:
    """Raise NoParity where Sentence Transformers is not installed."""
    if find_spec("sentence_transformers") is None:
        raise NoParity("sentence-transformers is not installed")


def parity(
    folder: Path,
    window: PairWindow,
    logits: np.ndarray,
    *,
    activation: str,
    device: str,
    may_run_code: bool,
) -> Parity:
    """Score the window with CrossEncoder in fp32, and compare.

    Args:
        folder: the model's folder.
        window: the pairs.
        logits: float32 (n,), those of Rankmill in fp32.
        activation: Rankmill's, from logits to scores.
        device: a device of torch.
        may_run_code: whether Python code of the folder may run.

    Raises:
        NoParity: CrossEncoder cannot load the model or score with it.
    """
    import torch

    with silent(), _failing():
        from sentence_transformers import CrossEncoder

        peer = CrossEncoder(
            str(folder),
            device=device,
            trust_remote_code=may_run_code,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32},
        )
        pairs = list(zip(window.queries, window.documents, strict=True))
        raw = np.asarray(
            peer.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        )
        expected = np.asarray(peer.predict(pairs, show_progress_bar=False))
    if raw.ndim == 2:  # two labels, which have no activation there
        raw = expected = raw[:, 1] - raw[:, 0]
        activation = "none"
    found = measure_agreement(window.queries, logits, raw)
    scores = activate(logits, activation)
    scale = max(1.0, float(np.abs(raw).max()))
    score_scale = max(1.0, float(np.abs(expected).max()))
    return Parity(
        peer=version("sentence-transformers"),
        n_pairs=found.n_pairs,
        max_difference=found.max_difference,
        max_score_difference=float(np.abs(scores - expected).max()) / score_scale,
        scale=scale,
        kendall_tau=found.kendall_tau,
    )


@contextmanager
def _failing() -> Iterator[None]:
    """Turn any failure of the peer into NoParity: it says nothing about Rankmill's scores."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise NoParity(
            f"CrossEncoder cannot score with it: {type(error).__name__}: {lines[0][:200]}"
        ) from error
