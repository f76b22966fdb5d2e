"""Settings of Sentence Transformers in a model folder: obeyed, or refused by name.

As Sentence Transformers 6: they count only where modules.json is there and
config_sentence_transformers.json says that the folder is a CrossEncoder. Without these, a folder
is read as a plain transformers checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.engine.folder.refusal import UnusableFolder

# Where its Transformer module keeps its settings; the first that is there counts.
_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

# Of no effect on the scores of a pair: memory, speed, and what only other model types use.
_WITHOUT_EFFECT = {
    *("module_output_name", "unpad_inputs", "query_length", "document_length", "query_expansion"),
}
_OBEYED = {"transformer_task", "modality_config", "processing_kwargs", "max_seq_length"} | {
    "do_lower_case"
}
# Arguments for the libraries that load; the first of each is the name of older versions.
_FOR_MODEL = ("model_args", "model_kwargs")
_FOR_TOKENIZER = ("tokenizer_args", "processor_kwargs")
_FOR_CONFIG = ("config_args", "config_kwargs")
# Of those, what this engine chooses itself, so that it cannot change what is scored.
_CHOSEN_HERE = {
    *("dtype", "torch_dtype", "attn_implementation", "use_safetensors", "low_cpu_mem_usage"),
    *("trust_remote_code", "use_fast", "use_cache", "device_map"),
}
_MODALITIES = {"text", "audio", "image", "video", "message"}
_SIZES = {"padding", "truncation", "max_length", "return_tensors", "pad_to_multiple_of"}
_OF_RENDERING = {"tokenize", "return_dict", "messages", "conversation", "processor_kwargs"}


# Of each task: the output of the model, and the name that the first module reads it by.
_OUTPUTS = {
    "feature-extraction": ("last_hidden_state", "token_embeddings"),
    "sequence-classification": ("logits", "scores"),
    "text-generation": ("logits", "causal_logits"),
}


@dataclass(frozen=True)
class StSettings:
    """What a folder states.

    Attributes:
        applied: Sentence Transformers loads the folder by its modules.json.
        task: what the transformer is loaded for, where that is stated.
        modules: type and path of each module after the transformer.
        activation: import path of a torch module.
        takes_messages: pairs go through the chat template; None where the tokenizer decides.
        message_format: `flat`, `structured` or `auto`.
        model_max_length: the tokenizer's limit, in place of its own.
        text, common, template: arguments for the tokenizer and its template.
    """

    applied: bool = False
    task: str | None = None
    modules: tuple[tuple[str, str], ...] = ()
    activation: str | None = None
    prompt: str | None = None
    takes_messages: bool | None = None
    message_format: str = "auto"
    model_max_length: int | None = None
    lower_case: bool = False
    text: Mapping[str, Any] = field(default_factory=dict)
    common: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def template_options(self) -> dict[str, Any]:
        """Arguments for the chat template itself."""
        left_out = _SIZES | {"restore_suffix"}
        return {key: value for key, value in self.template.items() if key not in left_out}

    def max_length(self, *, through_template: bool) -> int | None:
        """The length that pairs are cut to, where the folder states one."""
        order = (self.template, self.text, self.common) if through_template else ()
        for arguments in order or (self.common, self.text):
            if arguments.get("max_length") is not None:
                length: int = arguments["max_length"]
                return length
        return self.model_max_length


def read_st_settings(folder: Path) -> StSettings:
    """
    Raises:
        UnusableFolder: a setting that this engine does not obey, naming it.
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
    transformer = _transformer(folder)
    modality = transformer.get("modality_config")
    message = (modality or {}).get("message")
    return StSettings(
        applied=True,
        task=transformer.get("transformer_task", "feature-extraction"),
        modules=tuple(rest),
        activation=stated.get("activation_fn"),
        prompt=_prompt(folder, stated),
        takes_messages=message is not None,
        message_format=(message or {}).get("format", "auto"),
        model_max_length=_stated_length(folder, transformer),
        lower_case=bool(transformer.get("do_lower_case", False)),
        **_processing(folder, transformer),
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


def _transformer(folder: Path) -> dict[str, Any]:
    """The settings of the Transformer module, all of which are known."""
    where = _settings_file(folder)
    stated = _read(folder, where.name, dict) or {}
    for key, value in stated.items():
        arguments = (*_FOR_MODEL, *_FOR_TOKENIZER, *_FOR_CONFIG)
        if key in _WITHOUT_EFFECT | _OBEYED or value is None:
            continue
        if key not in arguments or not isinstance(value, dict):
            raise UnusableFolder(f"{where}: {key} is not supported; remove it or change the model")
        allowed = _CHOSEN_HERE | ({"model_max_length"} if key in _FOR_TOKENIZER else set())
        for argument in value:
            if argument not in allowed:
                raise UnusableFolder(
                    f"{where}: {key}.{argument} is not supported; put it into config.json or "
                    "tokenizer_config.json, or remove it"
                )
    _check_modality(where, stated)
    return stated


def _settings_file(folder: Path) -> Path:
    """The first that is there, as Sentence Transformers looks for them."""
    name = next((each for each in _FILES if (folder / each).is_file()), _FILES[0])
    return folder / name


def _check_modality(where: Path, stated: dict[str, Any]) -> None:
    modality = stated.get("modality_config")
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
    task = stated.get("transformer_task", "feature-extraction")
    output, name = _OUTPUTS.get(task, (None, None))
    for key in set(modality) & {"text", "message"}:
        found = modality[key].get("method_output_name")
        if output is not None and found not in (None, output, [output]):
            raise UnusableFolder(
                f"{where}: modality_config.{key}.method_output_name is {found!r}; {task} is "
                f"supported with {output} only"
            )
    if name is not None and stated.get("module_output_name") not in (None, name):
        raise UnusableFolder(
            f"{where}: module_output_name is {stated['module_output_name']!r}; {task} is supported "
            f"with {name} only"
        )


def _stated_length(folder: Path, transformer: dict[str, Any]) -> int | None:
    """As the tokenizer gets it: its own arguments come before max_seq_length."""
    where = _settings_file(folder)
    for key in reversed(_FOR_TOKENIZER):
        length = (transformer.get(key) or {}).get("model_max_length")
        if length is not None:
            return _length(f"{where}: {key}.model_max_length", length)
    length = transformer.get("max_seq_length")
    return None if length is None else _length(f"{where}: max_seq_length", length)


def _processing(folder: Path, transformer: dict[str, Any]) -> dict[str, Mapping[str, Any]]:
    stated = transformer.get("processing_kwargs") or {}
    where = f"{_settings_file(folder)}: processing_kwargs"
    if not isinstance(stated, dict) or not all(
        isinstance(each, dict) for each in stated.values() if each is not None
    ):
        raise UnusableFolder(f"{where} is not an object of objects")
    for key in set(stated) - {"common", "chat_template"} - _MODALITIES:
        raise UnusableFolder(f"{where}.{key} is not a setting of Sentence Transformers")
    found = {
        name: stated.get(key) or {}
        for name, key in (("text", "text"), ("common", "common"), ("template", "chat_template"))
    }
    for name, arguments in found.items():
        key = "chat_template" if name == "template" else name
        for argument, value in arguments.items():
            _check_argument(f"{where}.{key}.{argument}", name, argument, value)
    return found


def _check_argument(where: str, name: str, argument: str, value: Any) -> None:
    """Refuse what would change a pair in a way that this engine does not."""
    if argument == "max_length":
        if value is not None:
            _length(where, value)
    elif argument == "truncation":
        if value not in (True, "longest_first"):
            raise UnusableFolder(f"{where} is {value!r}; only longest_first is supported")
    elif argument == "restore_suffix":
        if value is not True:
            raise UnusableFolder(f"{where} is {value!r}; the template's end is always restored")
    elif argument in _SIZES:
        return
    elif name != "template" or argument in _OF_RENDERING:
        raise UnusableFolder(f"{where} is not supported; remove it")


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
    if not isinstance(content, kind) or (kind is list and not _is_list_of_objects(content)):
        raise UnusableFolder(
            f"{path}: not a JSON {'list of objects' if kind is list else 'object'}"
        )
    return content


def _is_list_of_objects(content: Any) -> bool:
    return bool(content) and all(isinstance(each, dict) for each in content)
