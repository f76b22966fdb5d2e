"""Convert a folder's weights and tokenizer, and prove the result by loading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.models.checkpoint import check_checkpoint
from worker.conversion.pickled import convert_weights
from worker.conversion.vocabulary import convert_tokenizer
from worker.engine.lean_loading import lean_loading
from worker.models import loading


@lean_loading()
def convert(
    folder: Path, target: Path, *, weights: bool, tokenizer: bool, may_run_code: bool
) -> list[str]:
    """Write what a load of `folder` lacks into `target`, which has its other files.

    Args:
        folder: the model's folder.
        target: a copy of it that is complete but for the new files.
        weights: turn pickled weights into safetensors, and load the model.
        tokenizer: make a tokenizer.json.
        may_run_code: whether the model's own code may run when it is loaded.

    Returns:
        The names of the new files.

    Raises:
        ModelUnavailable: it cannot be converted, or the result cannot be scored with.
    """
    written = [convert_tokenizer(target)] if tokenizer else []
    if not weights:
        return written
    files = convert_weights(folder, target, with_aliases=False)
    try:
        _load(target, may_run_code)
    except ModelUnavailable:
        # Some classes ask for every name of a tensor that is stored once.
        files = convert_weights(folder, target, with_aliases=True)
        _load(target, may_run_code)
    return [*written, *files]


def _load(folder: Path, may_run_code: bool) -> None:
    """Load every weight; how a pair is scored does not matter yet."""
    import torch
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    from worker.engine.folder.model_folder import ModelFolder
    from worker.engine.folder.modules import load_head
    from worker.engine.folder.weights import load_weights

    check_checkpoint(folder, may_run_code=may_run_code)
    source = ModelFolder(folder, may_run_code=may_run_code)
    with loading(str(folder)):
        auto: Any = AutoModelForSequenceClassification
        if source.has_head_modules:
            auto = AutoModel
        elif source.is_causal:
            auto = AutoModelForCausalLM
        elif source.is_seq2seq:
            auto = AutoModelForSeq2SeqLM
        model = load_weights(auto, source, torch.float32)
        if source.has_head_modules:
            load_head(source, model.config.get_text_config().hidden_size, "cpu")
