"""Load a model on the fastest path that it can take: packed, prefix, padded or causal.

The packed and the prefix path have a forward of this engine; the other two run the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from worker.engine.compiled.library import library
from worker.engine.encoding.answers import stated_answers
from worker.engine.families.causal import CausalForward, answer_ids
from worker.engine.families.family import Family, Kernels
from worker.engine.families.padded import PaddedForward, PooledForward
from worker.engine.families.probe import check_forward
from worker.engine.families.registry import family_of
from worker.engine.families.seq2seq import Seq2SeqForward, start_token
from worker.engine.families.stack import Stacks
from worker.engine.folder.mapped import MappedWeights, stored_dtype
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.modules import kinds, load_head
from worker.engine.folder.refusal import UnusableFolder, UnusableOption
from worker.engine.folder.weights import load_weights, map_weights
from worker.engine.kernels.attention import Attention, GroupedAttention
from worker.engine.kernels.causal_attention import GroupedCausalAttention
from worker.engine.kernels.compiled_attention import compiled_attention
from worker.engine.kernels.exact import keep_rows_of_head, rows_of_head
from worker.engine.kernels.heads import Head, linear_head
from worker.engine.kernels.layers import Forward
from worker.engine.kernels.precision import Resolved, numerics
from worker.engine.kernels.varlen import VarlenAttention, VarlenCausalAttention, has_varlen
from worker.engine.lean_loading import lean_loading

# Held by tests/unit/worker/engine/families/test_determinism.py.
_INVARIANT_ON_CPU = ("fp32", "bf16", "int8")

# With more than one thread SDPA rounded narrower heads (8, measured) by the place in the batch.
_MIN_INVARIANT_HEAD_DIM = 16

PathName = Literal["packed", "prefix", "padded", "causal"]


@dataclass(frozen=True)
class LoadedModel:
    """A forward on its device.

    Attributes:
        architecture: the class of transformers that it was loaded as.
        path: the layout of its batches.
        path_reason: the reason why it is padded or causal; empty if it is neither.
        is_batch_invariant: a pair's bits do not depend on the pairs that it shares a batch with.
        kernels: the compiled kernels in use, by their digest, or torch.
        exact: makes a forward in fp32 of the same weights, which casts one layer at a time; None
            where fp32 has to be loaded.
        mapped: the files that the weights stay in, if they do.
        unread: on the prefix path, the token that is not read where a pair ends in it.
    """

    forward: Forward
    architecture: str
    path: PathName
    path_reason: str
    is_batch_invariant: bool
    kernels: str = "torch"
    exact: Callable[[], Forward] | None = None
    mapped: MappedWeights | None = None
    unread: int | None = None


@lean_loading()
def load_model(source: ModelFolder, *, device: str, precision: Resolved) -> LoadedModel:
    """Load safetensors weights from a local folder; never use the network.

    Raises:
        UnusableFolder: the weights are not those that the config promises.
        ValueError: the precision needs the packed path and the model cannot take it.
    """
    check_scoring(source)
    family = _packed_family(source)
    if isinstance(family, Family):
        return _packed(source, family, device, precision)
    if precision in ("int8", "fp8"):
        raise ValueError(
            f"precision {precision} needs a model on the packed or the prefix path; "
            f"{source.path} is not: {family}"
        )
    load = _causal if source.is_causal else _seq2seq if source.is_seq2seq else _padded
    return load(source, device, precision, family)


def path_of(source: ModelFolder) -> tuple[PathName, str]:
    """Return a model's path, and the reason why it is padded or causal; empty if it is neither.

    Reads the config only, not the weights.
    """
    family = _packed_family(source)
    if isinstance(family, Family):
        return _path(family), ""
    return ("causal" if source.is_causal else "padded"), family


def check_scoring(source: ModelFolder) -> None:
    """Refuse a folder that does not state how a pair becomes a score.

    Raises:
        UnusableFolder: naming what to add or change.
    """
    settings = source.settings
    modules = kinds(source)
    architecture = str((source.config.architectures or [""])[0])
    if source.recipe.yes is not None and architecture.endswith("ForSequenceClassification"):
        raise UnusableOption(
            f"--yes-token {source.recipe.yes}: {source.path} is a {architecture}, which has a "
            "classification head in place of answer tokens; leave it out"
        )
    if source.has_head_modules:
        wanted = "feature-extraction"
        if source.config.is_encoder_decoder:
            raise UnusableFolder(
                f"{source.path}: a head of modules on {source.config.model_type}, an encoder with "
                "a decoder, is not supported"
            )
    elif source.is_seq2seq:
        if settings.applied:
            raise UnusableFolder(
                f"{source.path}: settings of Sentence Transformers for a T5 that answers, which "
                "Sentence Transformers does not have; remove modules.json"
            )
        if not source.shows_pair or stated_answers(source) is None:
            raise UnusableFolder(
                f"{source.path}: a T5 without a recipe, so that nothing says how it reranks; give "
                "its input with --input-template, and its answers with --yes-token and --no-token"
            )
        return
    elif source.is_causal:
        if settings.applied and modules != ["LogitScore"]:
            raise UnusableFolder(
                f"{source.path}: modules.json adds {', '.join(modules) or 'nothing'} to a causal "
                "language model; one LogitScore is what is supported"
            )
        if not modules and not source.shows_pair:
            raise UnusableFolder(
                f"{source.path}: a causal language model without a recipe, a chat template or a "
                "LogitScore module, so that nothing says how it reranks; give its prompt with "
                "--chat-template or --input-template, and its answers with --yes-token and "
                "--no-token"
            )
        wanted = "text-generation"
        stated_answers(source)
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


def _packed_family(source: ModelFolder) -> Family | str:
    """Return the family whose forward computes the model, or the reason why none does."""
    if source.is_seq2seq:
        return "its decoder answers"
    if source.runs_code:
        return "it brings Python code of its own"
    family = family_of(source.config)
    if family is None:
        return f"no packed forward for {source.config.model_type}"
    if source.is_causal and not family.shares_prefixes:
        return "a causal language model without a packed forward"
    if family.shares_prefixes and source.has_head_modules:
        return "a decoder under a head of modules"
    return family.why_unsupported(source.config) or family


def _path(family: Family) -> PathName:
    return "prefix" if family.shares_prefixes else "packed"


def _packed(source: ModelFolder, family: Family, device: str, precision: Resolved) -> LoadedModel:
    stored = stored_dtype(source)
    stays = stored is not None and device == "cpu"
    model, own_head = None, None
    if stays and family.modules is not None and not source.has_head_modules:
        model = map_weights(source, family.modules)
    if model is None:
        dtype = stored or torch.float32
        load = _language_model if source.is_causal else _body_and_head
        model, own_head = load(source, device, dtype, exact_head=False)
    mapped = MappedWeights(source, model) if stays else None
    stacks = Stacks(mapped)
    head = own_head or family.own_head(model)
    config = model.config
    head_dim = getattr(config, "head_dim", 0) or config.hidden_size // config.num_attention_heads
    how = numerics(precision)
    attention = _attention(device, how.dtype, head_dim)
    causal = (
        VarlenCausalAttention()
        if has_varlen(device, how.dtype, head_dim)
        else GroupedCausalAttention()
    )
    compiled = library()
    is_compiled = compiled and device == "cpu" and compiled.has(how.dtype)

    def exact() -> Forward:
        fp32 = numerics("fp32")
        attention = _attention(device, fp32.dtype, head_dim)
        kernels = Kernels(
            fp32.dtype, fp32.linear, attention, GroupedCausalAttention(), stacks.passing
        )
        return family.forward(model.base_model, head, kernels)

    return LoadedModel(
        forward=family.forward(
            model.base_model, head, Kernels(how.dtype, how.linear, attention, causal, stacks.kept)
        ),
        architecture=getattr(model, "architecture", type(model).__name__),
        path=_path(family),
        path_reason="",
        is_batch_invariant=(
            device == "cpu"
            and precision in _INVARIANT_ON_CPU
            and head_dim >= _MIN_INVARIANT_HEAD_DIM
        ),
        kernels=compiled.name if compiled and is_compiled else "torch",
        exact=exact if stays else None,
        mapped=mapped,
        unread=None if source.is_causal else config.pad_token_id,
    )


def _attention(device: str, dtype: torch.dtype, head_dim: int) -> Attention:
    if has_varlen(device, dtype, head_dim):
        return VarlenAttention()
    return compiled_attention(device, dtype, head_dim) or GroupedAttention()


def _body_and_head(
    source: ModelFolder, device: str, dtype: torch.dtype, *, exact_head: bool
) -> tuple[Any, Head | None]:
    """Return a classifier of transformers and None, or a body and the head of modules.json."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    auto: Any = AutoModel if source.has_head_modules else AutoModelForSequenceClassification
    exact_head = exact_head and not source.has_head_modules
    model = load_weights(auto, source, dtype, exact_head=exact_head).to(device)
    if not source.has_head_modules:
        _check_joining(source, model)
        return model, None
    return model, load_head(source, model.config.get_text_config().hidden_size, device)


def _check_joining(source: ModelFolder, model: Any) -> None:
    """Refuse a decoder that was never saved as a CrossEncoder: only its card says how it joins."""
    from transformers.modeling_layers import GenericForSequenceClassification

    is_decoder = isinstance(model, GenericForSequenceClassification)
    if is_decoder and not source.shows_pair and not source.states_cross_encoder:
        raise UnusableFolder(
            f"{source.path}: a language model with a classification head, without a recipe or a "
            "chat template, so that nothing says how it joins a query and a document; give that "
            "with --chat-template or --input-template"
        )


def _language_model(
    source: ModelFolder, device: str, dtype: torch.dtype, *, exact_head: bool
) -> tuple[Any, Head]:
    """Return a language model of transformers and the rows of its head for the answer tokens."""
    from transformers import AutoModelForCausalLM

    answers = stated_answers(source) or answer_ids(source)
    model = load_weights(AutoModelForCausalLM, source, dtype, exact_head=exact_head).to(device)
    # Of two labels, the second is the one that means relevant.
    return model, linear_head(*rows_of_head(model, answers[::-1]))


def _padded(source: ModelFolder, device: str, precision: Resolved, reason: str) -> LoadedModel:
    model, head = _body_and_head(source, device, numerics(precision).dtype, exact_head=True)
    left = source.tokenizer.padding_side == "left"
    padding: Any = {"pad_id": source.tokenizer.pad_token_id or 0, "pads_left": left}
    forward: Forward = (
        PaddedForward(model, **padding) if head is None else PooledForward(model, head, **padding)
    )
    check_forward(source, model, forward, device=device, precision=precision, left=left)
    return LoadedModel(
        forward=forward,
        architecture=type(model).__name__,
        path="padded",
        path_reason=reason,
        is_batch_invariant=False,
    )


def _seq2seq(source: ModelFolder, device: str, precision: Resolved, reason: str) -> LoadedModel:
    from transformers import AutoModelForSeq2SeqLM

    answers = stated_answers(source)
    assert answers is not None  # check_scoring has refused it
    dtype = numerics(precision).dtype
    model = load_weights(AutoModelForSeq2SeqLM, source, dtype)
    keep_rows_of_head(model, answers, dtype)
    forward = Seq2SeqForward(
        model.to(device), pad_id=source.tokenizer.pad_token_id or 0, start_id=start_token(source)
    )
    check_forward(source, model, forward, device=device, precision=precision, left=False)
    return LoadedModel(
        forward=forward,
        architecture=type(model).__name__,
        path="padded",
        path_reason=reason,
        is_batch_invariant=False,
    )


def _causal(source: ModelFolder, device: str, precision: Resolved, reason: str) -> LoadedModel:
    from transformers import AutoModelForCausalLM

    answers = stated_answers(source) or answer_ids(source)
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
