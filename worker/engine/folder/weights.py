"""Load a model's safetensors weights whole, or refuse the folder.

transformers fills a tensor that the files lack with random numbers and goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from tokenizers.models import Unigram

from worker.engine.folder.mapped import read_mapped
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder, reading, silent
from worker.engine.kernels.exact import with_exact_head

# Tensors of other tasks or older versions, inside the modules that are used.
_LEFT_OVER = re.compile(r"(^|\.)(pooler\..*|position_ids|(rotary_emb\.)?inv_freq|masked_bias)$")

# Settings of a config by which transformers loads another model than its class.
_CHANGING = ("auto_map", "quantization_config", "fusion_config", "kernel_config")


def load_weights(
    auto: Any, source: ModelFolder, dtype: torch.dtype, *, exact_head: bool = True
) -> Any:
    """Return a model of transformers on the CPU for inference.

    Args:
        auto: one of transformers' `AutoModel` classes.
        source: the model's folder.
        dtype: dtype of the model. Weights that have it in the files stay there, mapped.
        exact_head: whether the head is in fp32, whatever the dtype.

    Raises:
        UnusableFolder: a tensor is missing, has another shape, or belongs to another architecture.
    """
    if exact_head and dtype != torch.float32:
        with reading(source.path, "config.json"), torch.device("meta"):
            skeleton = auto.from_config(
                source.config, trust_remote_code=source.loading["trust_remote_code"]
            )
        auto = with_exact_head(skeleton)
    with reading(source.path, "the weights"), silent():
        model, info = auto.from_pretrained(
            source.path,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below by name
            **source.loading,
        )
    missing = sorted(info["missing_keys"])
    if model.base_model is model:  # without a head, nothing reads the pooler
        missing = [name for name in missing if not name.startswith("pooler.")]
    if any(_is_in_body(model, name) for name in missing):
        _refuse_missing(source, model, missing)  # first: another architecture has other shapes
    for name, in_file, in_model in sorted(info["mismatched_keys"]):
        is_head = name.rpartition(".")[0].split(".")[-1] in ("classifier", "score", "out_proj")
        hint = ' (without id2label it means two labels; one is "id2label": {"0": "LABEL_0"})'
        raise UnusableFolder(
            f"{source.path}: {name} is {list(in_file)} in the weights and {list(in_model)} by "
            f"config.json as a {type(model).__name__}; take the config.json of these weights"
            + (hint if is_head and source.config.num_labels == 2 else "")
        )
    if missing:
        _refuse_missing(source, model, missing)
    # A tensor may be left over in parts that are not used, such as another task's head.
    used = {name for part in (model, model.base_model) for name, _ in part.named_children()}
    used.add(model.base_model_prefix)
    unexpected = [
        name
        for name in sorted(info["unexpected_keys"])
        if name.split(".")[0] in used and not _LEFT_OVER.search(name)
    ]
    if unexpected:
        raise UnusableFolder(
            f"{source.path}: the weights hold {_named(unexpected)}, which {type(model).__name__} "
            "does not have; config.json is not the one of these weights"
        )
    _check_vocabulary(source, model)
    _check_padding(source, model)
    model.config.use_cache = False
    return model.eval()


def map_weights(source: ModelFolder, make: Callable[[Any], Any]) -> Any | None:
    """Return empty modules filled with the folder's weights, mapped; None if they do not fit.

    They fit if the files hold exactly the tensors of the modules. transformers renames tensors,
    reads settings of the folder that change a model, and names what is wrong: let it load the rest.

    Args:
        source: the model's folder.
        make: makes the modules for a config; any error means that it cannot.

    Raises:
        UnusableFolder: the tokenizer is not that of the weights.
    """
    if any(hasattr(source.config, setting) for setting in _CHANGING):
        return None
    if (source.path / "adapter_config.json").exists():
        return None
    try:
        model = make(source.config)
    except Exception:
        return None
    tensors = read_mapped(source)
    own = model.state_dict()
    if not all(name in own or _LEFT_OVER.search(name) for name in tensors):
        return None
    if not all(tensors[name].is_floating_point() for name in own if name in tensors):
        return None
    if {name: tensors[name].shape for name in own if name in tensors} != {
        name: tensor.shape for name, tensor in own.items()
    }:
        return None
    model.load_state_dict({name: tensors[name] for name in own}, assign=True)
    _check_vocabulary(source, model)
    return model.eval()


def _refuse_missing(source: ModelFolder, model: Any, missing: list[str]) -> None:
    n_all = len(model.state_dict())
    if not any(_is_in_body(model, name) for name in missing):
        what = (
            "so that its scores would be random; this is an embedding model or a backbone: name a "
            "reranker, such as BAAI/bge-reranker-v2-m3"
        )
    else:
        what = "which config.json promises; take the config.json and the weights of one model"
        if getattr(source.config, "auto_map", None) and not source.runs_code:
            what += ", or let its own code run (RANKMILL_REMOTE_CODE_MODELS)"
    raise UnusableFolder(
        f"{source.path}: the weights lack {_named(missing)} (of {n_all} tensors of "
        f"{type(model).__name__}), {what}"
    )


def _is_in_body(model: Any, name: str) -> bool:
    prefix: str = model.base_model_prefix
    return model.base_model is model or name.split(".")[0] == prefix


def _check_vocabulary(source: ModelFolder, model: Any) -> None:
    """Refuse a tokenizer whose ids or token types exceed the embeddings."""
    tokenizer = source.tokenizer
    if not len(tokenizer):
        raise UnusableFolder(f"{source.path}: the tokenizer has no tokens")
    try:
        embeddings = model.get_input_embeddings()
    except NotImplementedError:
        embeddings = None
    if not isinstance(getattr(embeddings, "weight", None), torch.Tensor):
        raise UnusableFolder(
            f"{source.path}: {type(model).__name__} has no embeddings of tokens, which is not "
            "supported"
        )
    n_rows = embeddings.weight.shape[0]
    if not _has_places_below(tokenizer, n_rows):
        vocabulary = tokenizer.get_vocab()
        token = max(vocabulary, key=vocabulary.__getitem__)
        if vocabulary[token] >= n_rows:
            raise UnusableFolder(
                f"{source.path}: the tokenizer has token {token[:40]!r} of id {vocabulary[token]}, "
                f"the weights have {n_rows} embeddings; they are not of one model"
            )
    n_types = getattr(model.config, "type_vocab_size", 0)
    types = tokenizer("a", "b").get("token_type_ids", [0])
    if n_types and max(types) >= n_types:
        raise UnusableFolder(
            f"{source.path}: the tokenizer gives token type {max(types)}, the weights have "
            f"{n_types} token types; they are not of one model"
        )


def _has_places_below(tokenizer: Any, n_rows: int) -> bool:
    """Return whether the ids are places in a list, and all below `n_rows`.

    They are in a Unigram tokenizer, whose large vocabulary takes 0.2 s to list.
    """
    if not tokenizer.is_fast or not isinstance(tokenizer.backend_tokenizer.model, Unigram):
        return False
    backend = tokenizer.backend_tokenizer
    n_places: int = backend.get_vocab_size(with_added_tokens=False)
    added: dict[int, Any] = backend.get_added_tokens_decoder()
    return max(n_places - 1, *added, 0) < n_rows


def _check_padding(source: ModelFolder, model: Any) -> None:
    """Refuse a classifying decoder without a common padding token.

    It finds a text's last token by the padding.
    """
    from transformers.modeling_layers import GenericForSequenceClassification

    config: Any = model.config
    if not isinstance(model, GenericForSequenceClassification):
        return
    stated, used = config.pad_token_id, source.tokenizer.pad_token_id
    if stated is None or stated != used:
        raise UnusableFolder(
            f"{source.path}: config.json has pad_token_id {stated}, the tokenizer {used}; "
            f"{type(model).__name__} finds the last token by it, so that both must name one"
        )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
