"""A model folder as the engine reads it: config, tokenizer, limits and default activation."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Activation = Literal["sigmoid", "none"]

# transformers gives a tokenizer without a stated limit 1e30, which the Rust side cannot take.
_NO_LIMIT = 2**31 - 1

# Keys of `chat_template` options that are about sizes or Sentence Transformers itself.
_NOT_THE_TEMPLATES = {"padding", "truncation", "max_length", "return_tensors", "restore_suffix"}

# Their position embeddings start after the padding index.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


class ModelFolder:
    """A local folder with a config, a tokenizer and safetensors weights; never the network.

    Python code in it runs only where `may_run_code` says so; who needs it then raises ValueError.
    """

    def __init__(self, path: Path, *, may_run_code: bool = False) -> None:
        self.path = path
        # Left open, transformers would ask on the terminal.
        self.loading: dict[str, Any] = {
            "local_files_only": True,
            "trust_remote_code": may_run_code,
        }

    @cached_property
    def config(self) -> Any:
        """Raises OSError without a config, ValueError for a model that is no cross-encoder."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.path, **self.loading)
        if not is_causal(config) and config.num_labels not in (1, 2):
            raise ValueError(
                f"{self.path} has {config.num_labels} labels; a cross-encoder has one or two"
            )
        return config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            self.path, **self.loading
        )
        return tokenizer

    @property
    def runs_code(self) -> bool:
        """Whether the model's own Python code is loaded in place of the library's."""
        has_code = getattr(self.config, "auto_map", None) is not None
        return has_code and bool(self.loading["trust_remote_code"])

    @property
    def is_causal(self) -> bool:
        """Whether it scores by the next token rather than with a classification head."""
        return is_causal(self.config)

    @property
    def length_limit(self) -> int:
        """The longest input the model can take, in tokens."""
        config = self.config
        positions = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
        if config.model_type in _OFFSET_POSITIONS:
            positions -= config.pad_token_id + 1
        return min(int(self.tokenizer.model_max_length), int(positions))

    @property
    def activation(self) -> Activation:
        """What `CrossEncoder.predict` applies by default: the folder's own word, else sigmoid.

        Sentence Transformers keeps it as the import path of a torch module, in three places over
        time.
        """
        config = self.config
        stated = (
            self.json("config_sentence_transformers.json").get("activation_fn")
            or (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
            or getattr(config, "sbert_ce_default_activation_function", None)
        )
        return "none" if stated and stated.endswith("Identity") else "sigmoid"

    @property
    def default_prompt(self) -> str | None:
        """What Sentence Transformers puts before every query, where the folder states it."""
        stated = self.json("config_sentence_transformers.json")
        prompt: str | None = (stated.get("prompts") or {}).get(stated.get("default_prompt_name"))
        return prompt

    @property
    def chat_options(self) -> dict[str, Any]:
        """Arguments for the chat template, where the folder states them."""
        processing = self.json("sentence_bert_config.json").get("processing_kwargs") or {}
        options: dict[str, Any] = processing.get("chat_template") or {}
        return {key: value for key, value in options.items() if key not in _NOT_THE_TEMPLATES}

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder; empty without that file."""
        content: dict[str, Any] = self._read(name) or {}
        return content

    def json_list(self, name: str) -> list[dict[str, Any]]:
        """A JSON list of the folder; empty without that file."""
        content: list[dict[str, Any]] = self._read(name) or []
        return content

    def _read(self, name: str) -> Any:
        file = self.path / name
        return json.loads(file.read_text()) if file.is_file() else None


def is_causal(config: Any) -> bool:
    """Whether the config is of a language model, scored by its next token."""
    architectures = getattr(config, "architectures", None) or [""]
    return str(architectures[0]).endswith("ForCausalLM")
