"""Settings of Sentence Transformers in a model folder: obeyed, or refused by name.

The rules are those of Sentence Transformers 6. Settings count only if modules.json exists and
config_sentence_transformers.json names a CrossEncoder. Without these, a folder is read as a plain
transformers checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankmill.models.input_length import settings_file, stated_lengths, takes_messages
from worker.engine.folder.refusal import UnusableFolder

# These do not change a pair's score: memory, speed, and settings of other model types.
_WITHOUT_EFFECT = {
    *("module_output_name", "unpad_inputs", "query_length", "document_length", "query_expansion"),
}
_OBEYED = {
    *("transformer_task", "modality_config", "processing_kwargs", "max_seq_length"),
    "do_lower_case",
}
# Arguments for the libraries that load; the first of each is the name of older versions.
_FOR_MODEL = ("model_args", "model_kwargs")
_FOR_TOKENIZER = ("tokenizer_args", "processor_kwargs")
_FOR_CONFIG = ("config_args", "config_kwargs")
# The engine chooses these arguments itself, so that they do not change a score.
_CHOSEN_HERE = {
    *("dtype", "torch_dtype", "attn_implementation", "use_safetensors", "low_cpu_mem_usage"),
    *("trust_remote_code", "use_fast", "use_cache", "device_map"),
}
_MODALITIES = {"text", "audio", "image", "video", "message"}
_SIZES = {"padding", "truncation", "max_length", "return_tensors", "pad_to_multiple_of"}
_OF_RENDERING = {"tokenize", "return_dict", "messages", "conversation", "processor_kwargs"}

# For each task: the output of the model, and its name for the first module.
_OUTPUTS = {
    "feature-extraction": ("last_hidden_state", "token_embeddings"),
    "sequence-classification": ("logits", "scores"),
    "text-generation": ("logits", "causal_logits"),
}


@dataclass(frozen=True)
class StSettings:
    """The settings of a folder.

    Attributes:
        applied: whether Sentence Transformers loads the folder by its modules.json.
        task: the task that the transformer is loaded for, if stated.
        modules: type and path of each module after the transformer.
        activation: import path of a torch module.
        prompt: text before every query.
        takes_messages: whether pairs go through the chat template; None if the tokenizer decides.
        message_format: `flat`, `structured` or `auto`.
        max_length: tokens that pairs are truncated to; overrides the tokenizer's limit.
        lower_case: whether texts are lowered.
        template_options: further arguments for the chat template.
    """

    applied: bool = False
    task: str | None = None
    modules: tuple[tuple[str, str], ...] = ()
    activation: str | None = None
    prompt: str | None = None
    takes_messages: bool | None = None
    message_format: str = "auto"
    max_length: int | None = None
    lower_case: bool = False
    template_options: Mapping[str, Any] = field(default_factory=dict)


def read_st_settings(folder: Path) -> StSettings:
    """Read the settings of a folder; none if Sentence Transformers ignores them.

    Raises:
        UnusableFolder: naming a setting that the engine does not obey.
    """
    modules = _read(folder, "modules.json", list)
    if modules is None:
        return StSettings()
    stated = _read(folder, "config_sentence_transformers.json", dict) or {}
    named = [(str(each.get("type", "")), str(each.get("path", ""))) for each in modules]
    if stated.get("model_type") != "CrossEncoder":
        if any(kind.endswith(".LogitScore") for kind, _ in named):
            raise UnusableFolder(
                f"{folder}: modules.json names a LogitScore, but no "
                "config_sentence_transformers.json says that model_type is CrossEncoder, so that "
                "Sentence Transformers ignores it; add that file"
            )
        return StSettings()
    (first, at), *rest = named
    if not first.endswith(".Transformer") or at.strip("./"):
        raise UnusableFolder(
            f"{folder}: modules.json does not begin with a Transformer in the folder itself, but "
            f"with {first} in {at or '.'}"
        )
    where = settings_file(folder)
    transformer = _read(folder, where.name, dict) or {}
    _check_transformer(where, transformer)
    _check_modality(where, transformer)
    template = _checked_processing(where, transformer)
    lengths = [_length(f"{where}: {key}", value) for key, value in stated_lengths(transformer)]
    message = (transformer.get("modality_config") or {}).get("message") or {}
    return StSettings(
        applied=True,
        task=transformer.get("transformer_task", "feature-extraction"),
        modules=tuple(rest),
        activation=stated.get("activation_fn"),
        prompt=_prompt(folder, stated),
        takes_messages=takes_messages(transformer),
        message_format=message.get("format", "auto"),
        max_length=next(iter(lengths), None),
        lower_case=bool(transformer.get("do_lower_case", False)),
        template_options={
            key: value
            for key, value in template.items()
            if key not in _SIZES and key != "restore_suffix"
        },
    )


def _prompt(folder: Path, stated: dict[str, Any]) -> str | None:
    prompts, name = stated.get("prompts") or {}, stated.get("default_prompt_name")
    where = f"{folder / 'config_sentence_transformers.json'}"
    if not isinstance(prompts, dict):
        raise UnusableFolder(f"{where}: prompts is not an object")
    if name is None:
        return None
    if name not in prompts or not isinstance(prompts[name], str | None):
        raise UnusableFolder(f"{where}: default_prompt_name {name!r} is not among the prompts")
    return prompts[name] or None


def _check_transformer(where: Path, settings: dict[str, Any]) -> None:
    """Refuse settings of the Transformer module that the engine does not know."""
    for key, value in settings.items():
        if key in _WITHOUT_EFFECT | _OBEYED or value is None:
            continue
        arguments = (*_FOR_MODEL, *_FOR_TOKENIZER, *_FOR_CONFIG)
        if key not in arguments or not isinstance(value, dict):
            raise UnusableFolder(f"{where}: {key} is not supported; remove it or change the model")
        allowed = _CHOSEN_HERE | ({"model_max_length"} if key in _FOR_TOKENIZER else set())
        for argument in value:
            if argument not in allowed:
                raise UnusableFolder(
                    f"{where}: {key}.{argument} is not supported; put it into config.json or "
                    "tokenizer_config.json, or remove it"
                )


def _check_modality(where: Path, settings: dict[str, Any]) -> None:
    """Refuse another way into the model than texts or messages through its forward."""
    modality = settings.get("modality_config")
    if modality is None:
        return
    if not isinstance(modality, dict) or not {"text", "message"} & set(modality):
        raise UnusableFolder(f"{where}: modality_config has no text")
    for key in ("text", "message"):
        each = modality.get(key, {"method": "forward"})
        if not isinstance(each, dict) or each.get("method") != "forward":
            raise UnusableFolder(f"{where}: modality_config.{key} is not the model's forward")
        if each.get("format", "auto") not in ("auto", "flat", "structured"):
            raise UnusableFolder(f"{where}: modality_config.{key}.format is {each['format']!r}")
    task = settings.get("transformer_task", "feature-extraction")
    output, name = _OUTPUTS.get(task, (None, None))
    for key in set(modality) & {"text", "message"}:
        output_name = modality[key].get("method_output_name")
        if output is not None and output_name not in (None, output, [output]):
            raise UnusableFolder(
                f"{where}: modality_config.{key}.method_output_name is {output_name!r}; {task} is "
                f"supported with {output} only"
            )
    if name is not None and settings.get("module_output_name") not in (None, name):
        raise UnusableFolder(
            f"{where}: module_output_name is {settings['module_output_name']!r}; {task} is "
            f"supported with {name} only"
        )


def _checked_processing(where: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments for tokenizer and template; return those for the chat template."""
    processing = settings.get("processing_kwargs") or {}
    if not isinstance(processing, dict) or not all(
        isinstance(each, dict) for each in processing.values() if each is not None
    ):
        raise UnusableFolder(f"{where}: processing_kwargs is not an object of objects")
    for part in set(processing) - {"common", "chat_template"} - _MODALITIES:
        raise UnusableFolder(
            f"{where}: processing_kwargs.{part} is not a setting of Sentence Transformers"
        )
    for part in ("text", "common", "chat_template"):
        for argument, value in (processing.get(part) or {}).items():
            named = f"{where}: processing_kwargs.{part}.{argument}"
            if argument == "max_length":
                if value is not None:
                    _length(named, value)
            elif argument == "truncation":
                if value not in (True, "longest_first"):
                    raise UnusableFolder(f"{named} is {value!r}; only longest_first is supported")
            elif argument == "restore_suffix":
                if value is not True:
                    raise UnusableFolder(
                        f"{named} is {value!r}; the template's end is always restored"
                    )
            elif argument not in _SIZES and (part != "chat_template" or argument in _OF_RENDERING):
                raise UnusableFolder(f"{named} is not supported; remove it")
    return processing.get("chat_template") or {}


def _length(where: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise UnusableFolder(f"{where} is {value!r}, not a number of tokens")
    return value


def _read(folder: Path, name: str, kind: type) -> Any:
    path = folder / name
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise UnusableFolder(f"{path}: not JSON: {error}") from None
    if kind is list:
        is_right = isinstance(content, list) and bool(content)
        if not is_right or not all(isinstance(each, dict) for each in content):
            raise UnusableFolder(f"{path}: not a JSON list of objects")
    elif not isinstance(content, kind):
        raise UnusableFolder(f"{path}: not a JSON object")
    return content
