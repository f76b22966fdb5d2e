"""The score of a document from the scores of its passages."""

from __future__ import annotations

import numpy as np

from worker.engine.passages.limits import LongDocs

_TOP = 3


def document_logit(logits: np.ndarray, long_docs: LongDocs) -> np.float32:
    """Return the logit of a document from those of its passages, float32 (n,) with n > 0.

    It is NaN if one of them is not finite. The mean of the best three is computed in float64 and
    rounded once, whatever the order of the passages.
    """
    if not np.isfinite(logits).all():
        return np.float32(np.nan)
    if long_docs == "mean-top3":
        return np.float32(np.sort(logits.astype(np.float64))[-_TOP:].mean())
    return np.float32(logits.max())
