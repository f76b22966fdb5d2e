"""Empty modules of BERT, RoBERTa and ELECTRA classifiers, under the names of transformers.

Importing transformers' own modules takes longer than importing torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_NAMES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
}
_COUNT_FROM_ZERO = ("bert", "electra")


class BertModules(nn.Module):
    """All tensors of a `*ForSequenceClassification`, on the meta device.

    Attributes:
        config: the config of transformers.
        architecture: the name of transformers' class.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.architecture = f"{_NAMES[config.model_type]}ForSequenceClassification"
        body, dense = _body(config), _linear(config.hidden_size, config.hidden_size)
        out = _linear(config.hidden_size, config.num_labels)
        if config.model_type == "bert":
            body.pooler = _named(dense=dense)
            self.classifier = out
        else:
            self.classifier = _named(dense=dense, out_proj=out)
        self._body_name = config.model_type if config.model_type in _COUNT_FROM_ZERO else "roberta"
        self.add_module(self._body_name, body)
        self.requires_grad_(False)

    @property
    def base_model(self) -> Any:
        """The body."""
        return self.get_submodule(self._body_name)

    def get_input_embeddings(self) -> Any:
        """Return the embeddings of tokens, as the method of transformers."""
        return self.base_model.embeddings.word_embeddings


def _body(config: Any) -> Any:
    padding = config.pad_token_id
    if config.hidden_size % config.num_attention_heads:
        raise ValueError("the hidden size is not a multiple of the number of heads")
    width = getattr(config, "embedding_size", config.hidden_size)
    body = _named(
        embeddings=_named(
            word_embeddings=_embedding(config.vocab_size, width, padding),
            position_embeddings=_embedding(
                config.max_position_embeddings,
                width,
                None if config.model_type in _COUNT_FROM_ZERO else padding,
            ),
            token_type_embeddings=_embedding(config.type_vocab_size, width, None),
            LayerNorm=nn.LayerNorm(width, eps=config.layer_norm_eps, device="meta"),
        ),
        encoder=_named(
            layer=nn.ModuleList([_layer(config) for _ in range(config.num_hidden_layers)])
        ),
    )
    if width != config.hidden_size:
        body.embeddings_project = _linear(width, config.hidden_size)
    body.config = config
    return body


def _layer(config: Any) -> Any:
    hidden, wide = config.hidden_size, config.intermediate_size
    return _named(
        attention=_named(
            self=_named(
                query=_linear(hidden, hidden),
                key=_linear(hidden, hidden),
                value=_linear(hidden, hidden),
            ),
            output=_named(dense=_linear(hidden, hidden), LayerNorm=_norm(config)),
        ),
        intermediate=_named(dense=_linear(hidden, wide)),
        output=_named(dense=_linear(wide, hidden), LayerNorm=_norm(config)),
    )


def _named(**children: nn.Module) -> Any:
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def _linear(n_in: int, n_out: int) -> nn.Linear:
    return nn.Linear(n_in, n_out, device="meta")


def _norm(config: Any) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, device="meta")


def _embedding(n_rows: int, width: int, padding: int | None) -> nn.Embedding:
    # Random numbers on the meta device would import another thousand modules.
    empty = torch.empty(n_rows, width, device="meta")
    return nn.Embedding(n_rows, width, padding, _weight=empty)
