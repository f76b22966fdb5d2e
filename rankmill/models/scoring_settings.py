"""Read how a model folder says its pairs are scored: their length, and a causal model's prompt.

The engine reads the same with its libraries, which a producer does not have. A value that is only
a library's default is None here; the worker knows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankmill.contract.job import JobOptions
from rankmill.errors import InputError, ModelUnavailable
from rankmill.models.folder_files import MODULES, TEMPLATES, read_json
from rankmill.models.input_length import (
    is_seq2seq,
    settings_file,
    stated_lengths,
    takes_messages,
    usable_positions,
)

# The padding id of a config that states none, where positions are counted from it.
_DEFAULT_PAD_ID = 1

_PROMPTS = (
    *("prompt", "prompt_col", "chat_template", "input_template", "yes_token"),
    *("query_prefix", "document_prefix"),
)


def check_lengths(options: JobOptions, folder: Path | None) -> None:
    """Refuse lengths that the model cannot take.

    Args:
        options: a job's options.
        folder: the model's; None for a model without a tokenizer, such as `null`.

    Raises:
        InputError: naming the flag, its value and the model's limit.
    """
    if folder is None:
        _refuse_any_cut(options)
        return
    limit, max_length = length_limit(folder), options.max_length
    if max_length is not None and limit is not None and max_length > limit:
        raise InputError(
            f"--max-length {max_length}: {options.model_id} takes at most {limit} tokens; give "
            "that or less, or leave it out"
        )
    check_passage_lengths(options, max_length or limit)


def _refuse_any_cut(options: JobOptions) -> None:
    long_docs = None if options.long_docs == "truncate" else options.long_docs
    for flag, value in (
        ("--long-docs", long_docs),
        ("--max-query-tokens", options.max_query_tokens),
        ("--max-document-tokens", options.max_document_tokens),
    ):
        if value is not None:
            raise InputError(f"{flag} {value}: {options.model_id} reads no tokens; leave it out")
    for name in _PROMPTS:
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag}: {options.model_id} reads no text; leave it out")


def check_passage_lengths(options: JobOptions, limit: int | None) -> None:
    """Refuse passages, overlaps and query budgets that leave no room for the other text.

    Args:
        options: a job's options.
        limit: the tokens of a pair, or None if it is not limited.

    Raises:
        InputError: naming the flag, its value and the limit.
    """
    stride = options.passage_stride
    if limit is not None and 2 * stride > limit:
        raise InputError(
            f"--passage-stride {stride}: a pair has at most {limit} tokens, and passages share "
            f"half of their tokens at most; give less than {limit // 2}"
        )
    for flag, value in (
        ("--passage-tokens", options.passage_tokens),
        ("--max-query-tokens", options.max_query_tokens),
    ):
        if value is not None and limit is not None and value >= limit:
            raise InputError(
                f"{flag} {value}: a pair has at most {limit} tokens, with query, passage and "
                "special tokens; give less"
            )


def length_limit(folder: Path) -> int | None:
    """Return the longest pair that the folder's files allow, in tokens; None if they set none.

    Sentence Transformers' own settings come first, in the order that it follows; then those of
    the tokenizer. The model's positions bound both.
    """
    config = read_json(folder / "config.json")
    positions = config.get("max_position_embeddings")
    if positions:
        pad_id = config.get("pad_token_id")
        pad_id = pad_id if isinstance(pad_id, int) else _DEFAULT_PAD_ID
        positions = usable_positions(config.get("model_type"), positions, pad_id)
    lengths = [value for _, value in stated_lengths(_transformer(folder) or {})]
    lengths.append(_object(folder, "tokenizer_config.json").get("model_max_length"))
    limits = [limit for limit in (positions, lengths[0]) if isinstance(limit, int | float)]
    return int(min(limits)) if limits and min(limits) < 2**31 - 1 else None


def check_causal(folder: Path) -> None:
    """Refuse a language model or a T5 that does not say how it reranks.

    Raises:
        ModelUnavailable: it has neither a chat template nor a LogitScore module.
    """
    config = read_json(folder / "config.json")
    if is_seq2seq(config.get("model_type"), config.get("architectures")):
        raise ModelUnavailable(
            f"{folder}: a T5 without a recipe, so that nothing says how it reranks; give its input "
            "with --input-template, and its answers with --yes-token and --no-token"
        )
    transformer = _transformer(folder)
    if transformer is None:
        architecture = str((config.get("architectures") or [""])[0])
        is_causal = architecture.endswith("ForCausalLM")
        has_prompt = any(
            (folder / name).exists() for name in ("chat_template.jinja", TEMPLATES)
        ) or _object(folder, "tokenizer_config.json").get("chat_template")
    else:
        is_causal = transformer.get("transformer_task") == "text-generation"
        has_prompt = len(read_json(folder / MODULES)) > 1 or takes_messages(transformer)
    if is_causal and not has_prompt:
        raise ModelUnavailable(
            f"{folder}: a causal language model without a recipe, a chat template or a LogitScore "
            "module, so that nothing says how it reranks; give its prompt with --chat-template or "
            "--input-template, and its answers with --yes-token and --no-token"
        )


def states_scoring(folder: Path) -> bool:
    """Return whether the folder has settings of Sentence Transformers for a CrossEncoder."""
    return _transformer(folder) is not None


def _transformer(folder: Path) -> dict[str, Any] | None:
    """Return the Transformer module's settings; None if modules.json does not apply."""
    stated = _object(folder, "config_sentence_transformers.json")
    if not (folder / MODULES).is_file() or stated.get("model_type") != "CrossEncoder":
        return None  # Sentence Transformers ignores it then, too
    return _object(folder, settings_file(folder).name)


def _object(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = read_json(folder / name) if (folder / name).is_file() else {}
    return content
