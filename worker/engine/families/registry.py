"""The packed model families: the only list of them.

To add a family, write one module next to `bert.py` that ends in a `Family`, and add it to
`FAMILIES`. `why_unsupported` must name every setting of a config that changes a score and that the
forward does not compute. Such a model takes the padded path instead. Build the forward from
`worker.engine.kernels` alone, so that every precision, every device and batch invariance come with
it.
"""

from __future__ import annotations

from typing import Any

from worker.engine.families import (
    albert,
    bert,
    deberta,
    decoder,
    distilbert,
    modernbert,
    mpnet,
    rotary_bert,
    two_way,
)
from worker.engine.families.family import Family

FAMILIES = (
    bert.FAMILY,
    distilbert.FAMILY,
    albert.FAMILY,
    mpnet.FAMILY,
    deberta.FAMILY,
    rotary_bert.FAMILY,
    two_way.FAMILY,
    modernbert.FAMILY,
    decoder.FAMILY,
)


def family_of(config: Any) -> Family | None:
    """Return the packed family of a config of transformers; None if it has none.

    Of several families of one model type it is the one that computes the config, else the last.
    """
    families = [each for each in FAMILIES if config.model_type in each.model_types]
    able = (each for each in families if each.why_unsupported(config) is None)
    return next(able, families[-1] if families else None)
