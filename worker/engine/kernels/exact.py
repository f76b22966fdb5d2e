"""Keep a model's head in fp32: its weights as the file has them, its inputs cast up.

bf16 has eight values between 18 and 19, so that different pairs with such logits would tie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def with_exact_head(skeleton: Any) -> Any:
    """Return a subclass of a model's class whose `from_pretrained` reads the head in fp32.

    Args:
        skeleton: a model of that class; it may be on the meta device.
    """
    kind = type(skeleton)
    names = {f"^{re.escape(name)}" for name in _head_names(skeleton)}
    strict = names | set(kind._keep_in_fp32_modules_strict or ())
    members = {"_keep_in_fp32_modules_strict": strict, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)


def run_head_in_fp32(model: Any) -> None:
    """Cast the inputs of a classifier's head to fp32; the head itself is fp32 already."""
    _body(model).register_forward_hook(lambda _, __, out: _cast_up(out))
    for pooler in _poolers(model):
        pooler.register_forward_pre_hook(lambda _, args: _cast_up(args))


def keep_rows_of_head(model: Any, rows: list[int], dtype: torch.dtype) -> None:
    """Reduce a language model's head to some rows in fp32, and keep the body in `dtype`.

    If the model caps or scales its logits after the head, it does so in fp32, too.

    Raises:
        ValueError: as `rows_of_head`.
    """
    model.set_output_embeddings(_Rows(*rows_of_head(model, rows)))
    model.get_input_embeddings().to(dtype)


def rows_of_head(model: Any, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return some rows of a language model's head and of its bias, in fp32.

    Raises:
        ValueError: the model has no head of that kind, or it has fewer rows.
    """
    full = model.get_output_embeddings()
    if not isinstance(full, nn.Linear):
        raise ValueError(
            f"{type(model).__name__} has no linear language model head to read the answer's "
            "logits from"
        )
    if not all(0 <= row < len(full.weight) for row in rows):
        raise ValueError(
            f"the answer tokens {rows} are not all among the {len(full.weight)} of the model's head"
        )
    bias = None if full.bias is None else full.bias.detach()[rows].float()
    return full.weight.detach()[rows].float(), bias


class _Rows(nn.Linear):
    """Some rows of a linear layer, in fp32; its inputs may have any precision."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        n_rows, width = weight.shape
        super().__init__(width, n_rows, bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.float(), self.weight, self.bias)


def _head_names(model: Any) -> Iterator[str]:
    """Yield patterns that match the names of all tensors of the head, and of a tied embedding."""
    names = {id(module): name for name, module in model.named_modules()}
    output = model.get_output_embeddings()
    if output is not None:
        yield names[id(output)] + "."
        if model.config.get_text_config().tie_word_embeddings:
            yield names[id(model.get_input_embeddings())] + "."
        return
    body = _body(model)
    yield from (f"{name}." for name, child in model.named_children() if child is not body)
    yield from (f"{name}$" for name, _ in model.named_parameters(recurse=False))
    yield from (f"{names[id(pooler)]}." for pooler in _poolers(model))


def _body(model: Any) -> Any:
    """Return the part that gives hidden states: the model's base, else its largest child."""
    if model.base_model is not model:
        return model.base_model
    return max(model.children(), key=lambda child: sum(p.numel() for p in child.parameters()))


def _poolers(model: Any) -> list[nn.Module]:
    """Return the poolers that are modules of the body but the first layer of the head."""
    return [child for name, child in _body(model).named_children() if "pooler" in name]


def _cast_up(out: Any) -> Any:
    """Return the output with every floating tensor in fp32."""
    if isinstance(out, torch.Tensor):
        return out.float() if out.is_floating_point() else out
    if isinstance(out, tuple):
        return tuple(map(_cast_up, out))
    if isinstance(out, dict):  # a ModelOutput
        for name, value in out.items():
            out[name] = _cast_up(value)
    return out
