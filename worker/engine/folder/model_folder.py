"""A model's folder: config, tokenizer, longest input and default activation."""

from __future__ import annotations

import copy
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from rankmill.models.input_length import is_seq2seq, usable_positions
from rankmill.models.recipe import Recipe
from worker.engine.folder.added_tokens import added_tokens
from worker.engine.folder.refusal import UnusableFolder, reading, silent
from worker.engine.folder.st_settings import StSettings, read_st_settings
from worker.engine.lean_loading import lean_loading

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Activation = Literal["sigmoid", "none"]

# transformers gives a tokenizer without a stated limit 1e30, which the Rust side cannot take.
_NO_LIMIT = 2**31 - 1

# The torch modules that CrossEncoder may apply and that Rankmill supports.
_ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.Identity": "none",
}


class ModelFolder:
    """A local folder with a config, a tokenizer and safetensors weights; never the network.

    Python code in it runs only with `may_run_code`; without, a model that needs it is refused.
    Every property raises UnusableFolder if a file is missing, broken or not supported.

    Attributes:
        path: the folder.
        recipe: how pairs are scored, where the folder does not say it or a job does.
        loading: arguments for the `from_pretrained` of transformers.
    """

    def __init__(
        self, path: Path, *, may_run_code: bool = False, recipe: Recipe | None = None
    ) -> None:
        self.path = path
        self.recipe = recipe or Recipe()
        # Without trust_remote_code, transformers would ask on the terminal.
        self.loading: dict[str, Any] = {
            "local_files_only": True,
            "trust_remote_code": may_run_code,
        }

    def with_recipe(self, recipe: Recipe) -> Self:
        """Return the same folder with another recipe; both share what was read."""
        other = copy.copy(self)
        other.recipe = recipe
        return other

    @cached_property
    def config(self) -> Any:
        """The config, of a model that can rerank."""
        from transformers import AutoConfig

        # A model's own code may import transformers' models.
        with lean_loading(), silent(), reading(self.path, "config.json"):
            config = AutoConfig.from_pretrained(self.path, **self.loading)
        answers = is_seq2seq(config.model_type, config.architectures)
        has_labels = not is_causal(config) and not answers
        if has_labels and not self.settings.modules and config.num_labels not in (1, 2):
            raise UnusableFolder(
                f"{self.path} has {config.num_labels} labels; a cross-encoder has one or two"
            )
        if type(config).extra_files:
            raise UnusableFolder(f"{self.path}: {config.model_type} is not a reranker")
        return config

    @cached_property
    def settings(self) -> StSettings:
        """The settings of Sentence Transformers."""
        return read_st_settings(self.path)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with the folder's setting for lower case."""
        from transformers import AutoTokenizer

        with lean_loading(), reading(self.path, "the tokenizer"):
            added = added_tokens(self.path, self.json("tokenizer_config.json"))
            known = {} if added is None else {"added_tokens_decoder": added}
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.path, **self.loading, **known
            )
            if self.settings.lower_case:
                from tokenizers.normalizers import Lowercase, Sequence

                # As Sentence Transformers does it: before any other normalizer.
                backend = tokenizer.backend_tokenizer
                before = backend.normalizer
                # Its members can be iterated over, which its stub does not say.
                is_sequence = isinstance(before, Sequence)
                steps: list[Any] = list(cast("Any", before)) if is_sequence else [before]
                if not any(isinstance(step, Lowercase) for step in steps):
                    backend.normalizer = Sequence([Lowercase(), *filter(None, steps)])
        return tokenizer

    @property
    def runs_code(self) -> bool:
        """True if the folder's Python code is loaded instead of the library's."""
        has_code = getattr(self.config, "auto_map", None) is not None
        return has_code and bool(self.loading["trust_remote_code"])

    @property
    def is_causal(self) -> bool:
        """True if it scores by the next token, not by a classification head."""
        if self.settings.applied:
            return self.settings.task == "text-generation"
        return is_causal(self.config)

    @property
    def is_seq2seq(self) -> bool:
        """True if it scores by the first token that its decoder answers with."""
        return is_seq2seq(self.config.model_type, self.config.architectures)

    @property
    def states_cross_encoder(self) -> bool:
        """True if any version of Sentence Transformers has saved it as a CrossEncoder."""
        keys = ("sentence_transformers", "sbert_ce_default_activation_function")
        return self.settings.applied or any(hasattr(self.config, key) for key in keys)

    @property
    def has_head_modules(self) -> bool:
        """True if modules.json adds a head to a transformer that gives hidden states."""
        return self.settings.task == "feature-extraction" and bool(self.settings.modules)

    @property
    def uses_template(self) -> bool:
        """True if pairs go through the chat template.

        Raises:
            UnusableFolder: the folder asks for a chat template and has none.
        """
        has_template = self.tokenizer.chat_template is not None
        if self.settings.takes_messages is None:
            return has_template
        if self.settings.takes_messages and not has_template:
            raise UnusableFolder(f"{self.path}: modality_config names messages; no chat template")
        return self.settings.takes_messages

    @property
    def shows_pair(self) -> bool:
        """True if a recipe or a chat template says how a query and a document are joined."""
        return bool(self.recipe.pieces or self.recipe.chat_template) or self.uses_template

    @property
    def length_limit(self) -> int:
        """The longest input of the model, in tokens; 2**31 - 1 if it has no limit."""
        config = self.config
        positions = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
        pad_id: Any = getattr(config, "pad_token_id", None)
        positions = usable_positions(config.model_type, positions, pad_id)
        stated = self.settings.max_length
        limit = self.tokenizer.model_max_length if stated is None else stated
        return min(int(limit), int(positions), _NO_LIMIT)

    @property
    def activation(self) -> Activation:
        """The function of the recipe, else the one that `CrossEncoder.predict` applies by default.

        It is sigmoid if none is stated.
        Sentence Transformers keeps it as the import path of a torch module, in one of three places
        by its version.

        Raises:
            UnusableFolder: `--activation` does not know the function.
        """
        if self.recipe.activation is not None:
            return self.recipe.activation
        config = self.config
        in_config = getattr(config, "sentence_transformers", None) or {}
        if not isinstance(in_config, dict):
            raise UnusableFolder(
                f"{self.path}: config.json: sentence_transformers is not an object"
            )
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
        """The recipe's prompt, else the text that Sentence Transformers puts before every query."""
        return self.settings.prompt if self.recipe.prompt is None else self.recipe.prompt

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON object of the folder; empty without that file."""
        file = self.path / name
        with reading(self.path, name):
            content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return content or {}


def is_causal(config: Any) -> bool:
    """Return whether a config is that of a language model, which scores by its next token."""
    architectures = getattr(config, "architectures", None) or [""]
    return str(architectures[0]).endswith("ForCausalLM")
