"""A model folder as the engine reads it: config, tokenizer, limits and default activation."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from worker.engine.folder.refusal import UnusableFolder, reading
from worker.engine.folder.st_settings import StSettings, read_st_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Activation = Literal["sigmoid", "none"]

# transformers gives a tokenizer without a stated limit 1e30, which the Rust side cannot take.
_NO_LIMIT = 2**31 - 1

# Their position embeddings start after the padding index.
_OFFSET_POSITIONS = (
    *("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm"),
    *("data2vec-text", "ibert", "xmod"),
)

# The torch modules that CrossEncoder may apply and this engine has.
_ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.Identity": "none",
}


class ModelFolder:
    """A local folder with a config, a tokenizer and safetensors weights; never the network.

    Python code in it runs only where `may_run_code` says so; a model that needs it is refused.
    All that is read of it raises UnusableFolder where it is not what it should be.
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
        from transformers import AutoConfig

        with reading(self.path, "config.json"):
            config = AutoConfig.from_pretrained(self.path, **self.loading)
        if not is_causal(config) and not self.settings.modules and config.num_labels not in (1, 2):
            raise UnusableFolder(
                f"{self.path} has {config.num_labels} labels; a cross-encoder has one or two"
            )
        if type(config).extra_files:
            raise UnusableFolder(f"{self.path}: {config.model_type} is not a reranker")
        return config

    @cached_property
    def settings(self) -> StSettings:
        """What Sentence Transformers obeys of the folder."""
        return read_st_settings(self.path)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        with reading(self.path, "the tokenizer"):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.path, **self.loading
            )
            if self.settings.lower_case:
                _lower_case(tokenizer)
        return tokenizer

    @property
    def runs_code(self) -> bool:
        """Whether the model's own Python code is loaded in place of the library's."""
        has_code = getattr(self.config, "auto_map", None) is not None
        return has_code and bool(self.loading["trust_remote_code"])

    @property
    def is_causal(self) -> bool:
        """Whether it scores by the next token rather than with a classification head."""
        if self.settings.applied:
            return self.settings.task == "text-generation"
        return is_causal(self.config)

    @property
    def states_cross_encoder(self) -> bool:
        """Whether Sentence Transformers has saved it as a CrossEncoder, in any of its versions."""
        keys = ("sentence_transformers", "sbert_ce_default_activation_function")
        return self.settings.applied or any(hasattr(self.config, key) for key in keys)

    @property
    def has_head_modules(self) -> bool:
        """Whether modules.json adds the head to a transformer that gives hidden states."""
        return self.settings.task == "feature-extraction" and bool(self.settings.modules)

    @property
    def uses_template(self) -> bool:
        """Whether pairs go through the chat template.

        Raises:
            UnusableFolder: the folder wants that and has none.
        """
        has_template = self.tokenizer.chat_template is not None
        if self.settings.takes_messages is None:
            return has_template
        if self.settings.takes_messages and not has_template:
            raise UnusableFolder(f"{self.path}: modality_config names messages; no chat template")
        return self.settings.takes_messages

    @property
    def length_limit(self) -> int:
        """The longest input the model can take, in tokens."""
        config = self.config
        positions = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
        if config.model_type in _OFFSET_POSITIONS:
            positions -= config.pad_token_id + 1
        stated = self.settings.max_length(through_template=self.uses_template)
        limit = self.tokenizer.model_max_length if stated is None else stated
        return min(int(limit), int(positions), _NO_LIMIT)

    @property
    def activation(self) -> Activation:
        """What `CrossEncoder.predict` applies by default: the folder's own word, else sigmoid.

        Sentence Transformers keeps it as the import path of a torch module, in three places over
        time.

        Raises:
            UnusableFolder: it is another function than those that `--activation` names.
        """
        config = self.config
        in_config = getattr(config, "sentence_transformers", None) or {}
        if not isinstance(in_config, dict):
            raise UnusableFolder(f"{self.path}: config.json: sentence_transformers is no object")
        stated = self.settings.activation
        if stated is None and "activation_fn" in in_config:
            stated = in_config["activation_fn"]
        elif stated is None:
            stated = getattr(config, "sbert_ce_default_activation_function", None)
        if stated is None:
            return "sigmoid"
        if stated not in _ACTIVATIONS:
            raise UnusableFolder(
                f"{self.path}: its activation is {stated}, which is not supported; choose one with "
                "--activation sigmoid or --activation none"
            )
        return _ACTIVATIONS[stated]

    @property
    def default_prompt(self) -> str | None:
        """What Sentence Transformers puts before every query, where the folder states it."""
        return self.settings.prompt

    @property
    def chat_options(self) -> dict[str, Any]:
        """Arguments for the chat template, where the folder states them."""
        return self.settings.template_options

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder; empty without that file."""
        content: dict[str, Any] = self._read(name) or {}
        return content

    def _read(self, name: str) -> Any:
        file = self.path / name
        with reading(self.path, name):
            return json.loads(file.read_text()) if file.is_file() else None


def _lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Lower all text before anything else, as Sentence Transformers does it."""
    from tokenizers.normalizers import Lowercase, Sequence

    backend = tokenizer.backend_tokenizer
    before = backend.normalizer
    # Its members can be iterated over, which its stub does not say.
    steps: list[Any] = list(cast("Any", before)) if isinstance(before, Sequence) else [before]
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Sequence([Lowercase(), *filter(None, steps)])


def is_causal(config: Any) -> bool:
    """Whether the config is of a language model, scored by its next token."""
    architectures = getattr(config, "architectures", None) or [""]
    return str(architectures[0]).endswith("ForCausalLM")
