"""A model folder as the engine reads it: config, tokenizer, limits and default activation."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Activation = Literal["sigmoid", "none"]

# transformers gives a tokenizer without a stated limit this or more (VERY_LARGE_INTEGER).
_NO_LIMIT = int(1e20)

# Their position embeddings start after the padding index.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


class ModelFolder:
    """A local folder with a config, a tokenizer and safetensors weights; never the network."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def config(self) -> Any:
        """Raises OSError without a config, ValueError for a model that is no cross-encoder."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.path, local_files_only=True)
        if not is_causal(config) and config.num_labels not in (1, 2):
            raise ValueError(
                f"{self.path} has {config.num_labels} labels; a cross-encoder has one or two"
            )
        return config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            self.path, local_files_only=True
        )
        return tokenizer

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

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder; empty without that file."""
        file = self.path / name
        content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return content


def is_causal(config: Any) -> bool:
    """Whether the config is of a language model, scored by its next token."""
    architectures = getattr(config, "architectures", None) or [""]
    return str(architectures[0]).endswith("ForCausalLM")
