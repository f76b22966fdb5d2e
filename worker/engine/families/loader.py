"""Which path a model takes: packed where its forward is ours, padded where it is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from worker.engine.families import bert, modernbert
from worker.engine.families.causal import CausalForward, answer_ids
from worker.engine.families.padded import PaddedForward, PooledForward
from worker.engine.families.probe import check_forward
from worker.engine.folder.loading import load_weights
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.modules import kinds, load_head
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.kernels.attention import Attention, GroupedAttention
from worker.engine.kernels.exact import keep_rows_of_head
from worker.engine.kernels.heads import Head
from worker.engine.kernels.layers import Forward
from worker.engine.kernels.precision import Resolved, numerics
from worker.engine.kernels.varlen import VarlenAttention, has_varlen

# Shown by tests/unit/worker/engine/families/test_determinism.py.
_INVARIANT_ON_CPU = ("fp32", "bf16", "int8")

# With more than one thread SDPA rounded narrower heads (8, measured) by the place in the batch.
_MIN_INVARIANT_HEAD_DIM = 16

PathName = Literal["packed", "padded", "causal"]


@dataclass(frozen=True)
class LoadedModel:
    """A forward on its device.

    Attributes:
        architecture: the class of transformers it was loaded as.
        path: how its batches are laid out.
        path_reason: why it does not take the packed path; empty when it does.
        is_batch_invariant: a pair's bits do not depend on the pairs it shares a batch with.
    """

    forward: Forward
    architecture: str
    path: PathName
    path_reason: str
    is_batch_invariant: bool


def why_not_packed(source: ModelFolder) -> str | None:
    """Why a model cannot be packed; None when it can."""
    config = source.config
    if source.is_causal:
        return "a causal language model"
    if source.runs_code:
        return "it brings Python code of its own"
    for module in (bert, modernbert):
        if config.model_type in module.MODEL_TYPES:
            reason: str | None = module.why_unsupported(config)
            return reason
    return f"no packed forward for {config.model_type}"


def load_model(source: ModelFolder, *, device: str, precision: Resolved) -> LoadedModel:
    """Load safetensors weights from a local folder; never the network.

    Raises:
        UnusableFolder: the weights are not what the config promises.
        ValueError: the precision needs the packed path and the model cannot take it.
    """
    check_scoring(source)
    reason = why_not_packed(source)
    if reason is None:
        return _packed(source, device, precision)
    if precision in ("int8", "fp8"):
        raise ValueError(
            f"precision {precision} needs a model on the packed path; "
            f"{source.path} is not: {reason}"
        )
    if source.is_causal:
        return _causal(source, device, precision, reason)
    return _padded(source, device, precision, reason)


def check_scoring(source: ModelFolder) -> None:
    """Refuse a folder whose way from a pair to a score is not known.

    Raises:
        UnusableFolder: saying what to add.
    """
    settings = source.settings
    modules = kinds(source)
    if source.has_head_modules:
        wanted = "feature-extraction"
        if source.config.is_encoder_decoder:
            raise UnusableFolder(
                f"{source.path}: a head of modules on {source.config.model_type}, an encoder with "
                "a decoder, is not supported"
            )
    elif source.is_causal:
        if settings.applied and modules != ["LogitScore"]:
            raise UnusableFolder(
                f"{source.path}: modules.json adds {', '.join(modules) or 'nothing'} to a causal "
                "language model; one LogitScore is what is supported"
            )
        if not modules and not source.uses_template:
            raise UnusableFolder(
                f"{source.path}: a causal language model without a chat template and a LogitScore "
                "module, so that nothing says how it reranks; add a chat template that shows "
                "roles query and document, and a LogitScore module, to the folder"
            )
        wanted = "text-generation"
    elif modules:
        raise UnusableFolder(
            f"{source.path}: modules.json adds {', '.join(modules)} to a transformer whose task is "
            f"{settings.task}; a head of modules needs feature-extraction"
        )
    else:
        wanted = "sequence-classification"
    if settings.applied and settings.task != wanted:
        raise UnusableFolder(
            f"{source.path}: its transformer_task is {settings.task}; by config.json and "
            f"modules.json it must be {wanted}"
        )


def _packed(source: ModelFolder, device: str, precision: Resolved) -> LoadedModel:
    family: Any = modernbert if source.config.model_type in modernbert.MODEL_TYPES else bert
    model, head = _body_and_head(source, device, torch.float32)
    config = model.config
    how = numerics(precision)
    forward = family.Packed(
        model.base_model,
        config,
        head or family.own_head(model),
        dtype=how.dtype,
        linear=how.linear,
        attention=_attention(config, device, how.dtype),
    )
    return LoadedModel(
        forward=forward,
        architecture=type(model).__name__,
        path="packed",
        path_reason="",
        is_batch_invariant=(
            device == "cpu"
            and precision in _INVARIANT_ON_CPU
            and _head_dim(config) >= _MIN_INVARIANT_HEAD_DIM
        ),
    )


def _body_and_head(source: ModelFolder, device: str, dtype: torch.dtype) -> tuple[Any, Head | None]:
    """A classifier of transformers, or a body and the head that modules.json adds to it."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    if not source.has_head_modules:
        return load_weights(AutoModelForSequenceClassification, source, dtype).to(device), None
    model = load_weights(AutoModel, source, dtype, has_head=False).to(device)
    return model, load_head(source, model.config.get_text_config().hidden_size, device)


def _attention(config: Any, device: str, dtype: torch.dtype) -> Attention:
    is_varlen = has_varlen(device, dtype, _head_dim(config))
    return VarlenAttention() if is_varlen else GroupedAttention()


def _head_dim(config: Any) -> int:
    head_dim: int = config.hidden_size // config.num_attention_heads
    return head_dim


def _padded(source: ModelFolder, device: str, precision: Resolved, reason: str) -> LoadedModel:
    model, head = _body_and_head(source, device, numerics(precision).dtype)
    if head is None:
        _check_pairs_are_joined(source, model)
    padding: Any = {
        "pad_id": source.tokenizer.pad_token_id or 0,
        "pads_left": source.tokenizer.padding_side == "left",
    }
    forward: Forward = (
        PaddedForward(model, **padding) if head is None else PooledForward(model, head, **padding)
    )
    check_forward(
        source, model, forward, device=device, precision=precision, left=padding["pads_left"]
    )
    return LoadedModel(
        forward=forward,
        architecture=type(model).__name__,
        path="padded",
        path_reason=reason,
        is_batch_invariant=False,
    )


def _check_pairs_are_joined(source: ModelFolder, model: Any) -> None:
    """Refuse a decoder that nobody has made a CrossEncoder of: its card alone joins the texts.

    Raises:
        UnusableFolder: saying what to add.
    """
    from transformers.modeling_layers import GenericForSequenceClassification

    if not isinstance(model, GenericForSequenceClassification):
        return
    if not source.uses_template and not source.states_cross_encoder:
        raise UnusableFolder(
            f"{source.path}: a language model with a classification head and without a chat "
            "template, so that nothing says how it joins a query and a document; add a chat "
            "template that shows roles query and document to the folder"
        )


def _causal(source: ModelFolder, device: str, precision: Resolved, reason: str) -> LoadedModel:
    from transformers import AutoModelForCausalLM

    answers = answer_ids(source)
    dtype = numerics(precision).dtype
    model = load_weights(AutoModelForCausalLM, source, dtype)
    keep_rows_of_head(model, answers, dtype)
    forward = CausalForward(model.to(device), pad_id=source.tokenizer.pad_token_id or 0)
    check_forward(source, model, forward, device=device, precision=precision, left=True)
    return LoadedModel(
        forward=forward,
        architecture=type(model).__name__,
        path="causal",
        path_reason=reason,
        is_batch_invariant=False,
    )
