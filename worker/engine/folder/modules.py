"""Load the head that modules.json adds to a transformer, as CrossEncoder runs it.

Only config.json and model.safetensors of the modules' subfolders are read. An unknown module is
refused by name, and so is a weight that is missing, left over or of another shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder, reading
from worker.engine.kernels.heads import (
    POOLED,
    POOLINGS,
    SCORES,
    TOKENS,
    Dense,
    Head,
    Normed,
    Pooling,
    Step,
)
from worker.engine.kernels.layers import Activation, Linear, Norm, exact

# Functions that act on each number by itself and have no weights.
_ELEMENTWISE = (
    *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity"),
    *("LeakyReLU", "LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus"),
    *("Softshrink", "Softsign", "Tanh", "Tanhshrink"),
)
_TORCH_MODULE = re.compile(r"torch\.nn\.(?:modules\.(?:activation\.|linear\.)?)?(\w+)")

# The settings of Sentence Transformers before 5.5, in the order in which it concatenates them.
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def kinds(source: ModelFolder) -> list[str]:
    """Return the names of the modules after the transformer.

    Raises:
        UnusableFolder: a module is not one of Sentence Transformers' own.
    """
    names = []
    for kind, path in source.settings.modules:
        package, _, name = kind.rpartition(".")
        if package.partition(".")[0] != "sentence_transformers":
            raise UnusableFolder(
                f"{source.path}: modules.json names {kind} ({path}), a module of its own, which is "
                "not supported"
            )
        names.append(name)
    return names


def load_head(source: ModelFolder, width: int, device: str) -> Head:
    """Return the head that turns hidden states into scores.

    Args:
        source: a folder with head modules.
        width: the width of the hidden states.
        device: the device for the weights.

    Raises:
        UnusableFolder: a module is not supported, its weights do not fit, or none gives scores.
    """
    features = {TOKENS: _Feature(width, of_tokens=True)}
    steps: list[Step] = []
    for name, (_, path) in zip(kinds(source), source.settings.modules, strict=True):
        module = _Module(source, name, path, features, device)
        if name not in _BUILDERS:
            raise module.refusal(
                f"{name} is not supported; a head is made of {', '.join(sorted(_BUILDERS))}"
            )
        step = _BUILDERS[name](module)
        if step is not None:
            steps.append(step)
    scores = features.get(SCORES)
    if scores is None or scores.of_tokens or scores.width not in (1, 2):
        given = "gives none" if scores is None else f"gives {scores.width} a token or pair"
        raise UnusableFolder(
            f"{source.path}: modules.json must end in a module whose module_output_name is scores, "
            f"one or two a pair; it {given}"
        )
    return Head(steps)


def answers_of_logit_score(source: ModelFolder) -> list[int]:
    """Return the token of a LogitScore that means relevant and, if used, the irrelevant one.

    Raises:
        UnusableFolder: its config.json names no tokens.
    """
    ((_, path),) = source.settings.modules
    module = _Module(source, "LogitScore", path, {})
    options = module.options(true_token_id=None, false_token_id=None, module_input_name="")
    if options["module_input_name"] not in ("", "causal_logits"):
        raise module.refusal(f"module_input_name is {options['module_input_name']!r}")
    ids = [options["true_token_id"]]
    if options["false_token_id"] is not None:
        ids.append(options["false_token_id"])
    if not all(type(token) is int and token >= 0 for token in ids):
        raise module.refusal("true_token_id and false_token_id are not tokens of the vocabulary")
    return ids


@dataclass(frozen=True)
class _Feature:
    """An output of the modules so far; its rows are tokens or pairs."""

    width: int
    of_tokens: bool


class _Module:
    """A module's files and the features of the modules before it."""

    def __init__(
        self,
        source: ModelFolder,
        kind: str,
        path: str,
        features: dict[str, _Feature],
        device: str = "cpu",
    ) -> None:
        self.source = source
        self._where = source.path / path
        self._path = path
        self._kind = kind
        self._features = features
        self._device = device

    def refusal(self, why: str) -> UnusableFolder:
        """Return the error that names the module and the reason."""
        return UnusableFolder(f"{self._where}: {self._kind}: {why}")

    def options(self, **defaults: Any) -> dict[str, Any]:
        """Return its config.json over the defaults; a value must have the type of its default."""
        stated = self.source.json(f"{self._path}/config.json")
        for key, value in stated.items():
            if key not in defaults:
                raise self.refusal(f"the option {key} in config.json is not supported")
            default = defaults[key]
            is_right = default is None or type(value) is type(default)
            if not is_right or (type(value) is int and default is not None and value < 1):
                raise self.refusal(f"{key} in config.json is {value!r}")
        return defaults | stated

    def read(self, name: str, width: int | None = None) -> _Feature:
        """Return a feature that exists and has the width that the module expects."""
        feature = self._features.get(name)
        if feature is None:
            raise self.refusal(f"it reads {name}, which no module before it writes")
        if width is not None and feature.width != width:
            raise self.refusal(f"config.json says {width} inputs, but {name} has {feature.width}")
        return feature

    def write(self, name: str, width: int, *, of_tokens: bool) -> None:
        """Add the feature that the module writes."""
        if not of_tokens and name == TOKENS:
            raise self.refusal(f"it writes {name}, but has no tokens")
        self._features[name] = _Feature(width, of_tokens)

    def weights(self, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """Read its model.safetensors in fp32.

        Args:
            shapes: the shape of each tensor that must exist; `__` in a name means a dot.
        """
        file = self._where / "model.safetensors"
        if not file.is_file():
            pickled = (
                " (pytorch_model.bin can run code)" * (self._where / "pytorch_model.bin").is_file()
            )
            raise self.refusal(f"no model.safetensors{pickled}")
        from transformers.modeling_utils import load_state_dict

        with reading(self._where, file.name):
            tensors: dict[str, torch.Tensor] = load_state_dict(file)
        expected = {name.replace("__", "."): shape for name, shape in shapes.items()}
        for name in sorted(set(expected) ^ set(tensors)):
            what = "lacks" if name in expected else "has an unknown"
            raise self.refusal(f"model.safetensors {what} {name}")
        for name, shape in expected.items():
            tensor = tensors[name]
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                raise self.refusal(
                    f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not floats of {shape}"
                )
        return {name: tensor.float().to(self._device) for name, tensor in tensors.items()}


def _pooling(module: _Module) -> Step:
    options = module.options(
        embedding_dimension=0,
        word_embedding_dimension=0,
        pooling_mode=None,
        include_prompt=True,
        **dict.fromkeys(_LEGACY_POOLING, False),
    )
    modes = options["pooling_mode"]
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if options[key]] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(mode in POOLINGS for mode in modes):
        raise module.refusal(f"pooling_mode {modes!r} is none of {', '.join(POOLINGS)}")
    if not options["include_prompt"] and module.source.default_prompt is not None:
        raise module.refusal("include_prompt is false, which is not supported with a prompt")
    width = options["embedding_dimension"] or options["word_embedding_dimension"]
    tokens = module.read(TOKENS, width or None)
    module.write(POOLED, tokens.width * len(modes), of_tokens=False)
    return Pooling(tuple(modes))


def _dense(module: _Module) -> Step:
    options = module.options(
        in_features=0,
        out_features=0,
        bias=True,
        activation_function="torch.nn.modules.activation.Tanh",
        module_input_name=POOLED,
        module_output_name=None,
        use_residual=False,
    )
    n_in, n_out = options["in_features"], options["out_features"]
    reads = options["module_input_name"]
    writes = options["module_output_name"] or reads
    if not isinstance(writes, str) or not n_in or not n_out:
        raise module.refusal("config.json has no in_features, out_features or module_output_name")
    shapes: dict[str, tuple[int, ...]] = {"linear__weight": (n_out, n_in)}
    if options["bias"]:
        shapes["linear__bias"] = (n_out,)
    if options["use_residual"] and n_in != n_out:
        shapes["residual__weight"] = (n_out, n_in)
    weights = module.weights(**shapes)
    residual: Linear | None = None
    if "residual.weight" in weights:
        residual = exact(weights["residual.weight"], None)
    elif options["use_residual"]:
        residual = nn.Identity()
    read = module.read(reads, n_in)
    module.write(writes, n_out, of_tokens=read.of_tokens)
    return Dense(
        weights["linear.weight"],
        weights.get("linear.bias"),
        _activation(module, options["activation_function"]),
        residual=residual,
        reads=reads,
        writes=writes,
    )


def _activation(module: _Module, stated: str) -> Activation | None:
    match = _TORCH_MODULE.fullmatch(stated)
    name = match and match[1]
    if name not in _ELEMENTWISE:
        raise module.refusal(f"the activation_function {stated} is not supported")
    if name == "Identity":
        return None
    activation: Activation = getattr(nn, str(name))()
    return activation


def _layer_norm(module: _Module) -> Step:
    width = module.options(dimension=0)["dimension"]
    if not width:
        raise module.refusal("config.json has no dimension")
    weights = module.weights(norm__weight=(width,), norm__bias=(width,))
    module.read(POOLED, width)
    norm = nn.LayerNorm(width)
    norm.weight = nn.Parameter(weights["norm.weight"], requires_grad=False)
    norm.bias = nn.Parameter(weights["norm.bias"], requires_grad=False)
    return Normed(Norm(norm, dtype=torch.float32))


def _normalize(module: _Module) -> Step:
    options = module.options(module_input_name=POOLED, module_output_name=None)
    reads = options["module_input_name"]
    writes = options["module_output_name"] or reads
    read = module.read(reads)
    module.write(writes, read.width, of_tokens=read.of_tokens)
    return Normed(lambda x: F.normalize(x, dim=-1), reads=reads, writes=writes)


def _dropout(module: _Module) -> None:
    """Add no step: dropout acts in training only."""
    module.options(dropout=None)
    module.read(POOLED)


_BUILDERS: dict[str, Callable[[_Module], Step | None]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Dropout": _dropout,
}
