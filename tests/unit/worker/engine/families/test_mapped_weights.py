"""Weights that stay in their files give the bits of a model that is copied into memory in fp32."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    CamembertConfig,
    RobertaConfig,
)

from tests.support.models.checkpoints import bert, modernbert, roberta
from tests.support.models.windows import mixed_window
from tests.support.models.zoo import FAMILIES, bert_like
from worker.engine.batches.batching import TokenBatch
from worker.engine.encoding.encoder import encoder_for
from worker.engine.families.bert_modules import BertModules
from worker.engine.families.family import Family, Kernels
from worker.engine.families.loader import load_model
from worker.engine.families.padded import PaddedForward
from worker.engine.families.registry import family_of
from worker.engine.families.stack import Stacks
from worker.engine.folder import weights as folder_weights
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.kernels.attention import GroupedAttention
from worker.engine.kernels.causal_attention import GroupedCausalAttention
from worker.engine.kernels.layers import Embedding, Forward, Norm
from worker.engine.kernels.precision import Resolved, numerics
from worker.engine.scorer import Scorer

pytestmark = pytest.mark.slow

BUILDERS: dict[str, Callable[..., Path]] = {
    "bert": bert,
    "xlm-roberta": roberta,
    "modernbert": modernbert,
}


def in_one_dtype(folder: Path, dtype: torch.dtype) -> None:
    _rewrite(folder, lambda name, tensor: tensor.to(dtype))


def with_fp32_head(folder: Path) -> None:
    _rewrite(folder, lambda name, tensor: tensor if "classifier" in name else tensor.half())


def in_shards(folder: Path) -> None:
    in_one_dtype(folder, torch.float16)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def with_old_names(folder: Path) -> None:
    path = folder / "model.safetensors"
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = load_file(path)
    for new, old in names.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})


FILES: dict[str, Callable[[Path], None]] = {
    "fp32": lambda folder: None,
    "fp16": lambda folder: in_one_dtype(folder, torch.float16),
    "bf16": lambda folder: in_one_dtype(folder, torch.bfloat16),
    "mixed": with_fp32_head,
    "shards": in_shards,
    "old names": with_old_names,
}


@pytest.fixture(scope="module", params=[(name, files) for name in BUILDERS for files in FILES])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, files = request.param
    torch.manual_seed(0)
    made = BUILDERS[name](tmp_path_factory.mktemp(name) / "model")
    FILES[files](made)
    return made


def test_mapped_weights_give_the_bits_of_copied_ones(folder: Path) -> None:
    source = ModelFolder(folder)
    batch = batch_of(source)
    for precision in ("fp32", "bf16", "int8"):
        loaded = load_model(source, device="cpu", precision=precision)
        expected = logits_of(copied(source, precision), batch)
        assert torch.equal(logits_of(loaded.forward, batch), expected), precision
        if loaded.exact is not None:
            exact = logits_of(copied(source, "fp32"), batch)
            assert torch.equal(logits_of(loaded.exact(), batch), exact), precision
        assert loaded.architecture == type(transformers_model(source)).__name__


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_weights_in_16_bits_score_as_transformers_in_fp32(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = FAMILIES[name](tmp_path / "model")
    in_one_dtype(folder, torch.float16)
    source = ModelFolder(folder)
    batch = batch_of(source)
    logits = logits_of(load_model(source, device="cpu", precision="fp32").forward, batch)
    model = transformers_model(source)
    expected = logits_of(PaddedForward(model, pad_id=0, pads_left=False), batch)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_the_pages_of_a_loaded_model_are_released(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = bert(tmp_path / "model", hidden_size=512, intermediate_size=2048)
    scorer = Scorer.load(folder, precision="bf16")
    assert resident_kb(folder) == 0
    list(scorer.score([mixed_window()]))
    scorer.agreement(mixed_window())
    assert resident_kb(folder) < (folder / "model.safetensors").stat().st_size / 1024 / 4


def test_files_that_are_written_over_are_noticed_and_replaced_ones_are_not(tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    path = folder / "model.safetensors"
    scorer = Scorer.load(folder)
    content = path.read_bytes()
    (folder / "new").write_bytes(content)
    (folder / "new").rename(path)
    assert not scorer.have_weights_changed()
    scorer = Scorer.load(folder)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(content[-1:])
    assert scorer.have_weights_changed()


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (bert, {}),
        (bert, {"num_labels": 2, "type_vocab_size": 3, "num_hidden_layers": 1}),
        (roberta, {}),
        (roberta, {"config_class": RobertaConfig, "num_labels": 2}),
        (roberta, {"config_class": CamembertConfig}),
        (bert_like, {"kind": "electra"}),
        (bert_like, {"kind": "electra", "sizes": {"embedding_size": 32}}),
    ],
)
def test_the_empty_modules_are_those_of_transformers(
    tmp_path: Path, build: Callable[..., Path], options: dict[str, Any]
) -> None:
    config = AutoConfig.from_pretrained(build(tmp_path / "model", **options))
    with torch.device("meta"):
        expected = AutoModelForSequenceClassification.from_config(config)
    made = BertModules(config)
    assert shapes(made) == shapes(expected)
    assert made.architecture == type(expected).__name__
    assert made.base_model.embeddings.LayerNorm.eps == config.layer_norm_eps


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "none"}},
        {"num_attention_heads": 5},
        {"pad_token_id": 10**6},
        {"num_labels": 3},
        {"intermediate_size": 65},
    ],
)
def test_transformers_loads_or_refuses_what_does_not_fit(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    source = ModelFolder(folder)
    source.__dict__["config"] = AutoConfig.from_pretrained(folder)
    assert folder_weights.map_weights(source, BertModules) is None


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [32, 7])  # the second is not for the compiled kernels
def test_rows_that_are_cast_when_read_are_those_of_a_cast_table(
    stored: torch.dtype, dtype: torch.dtype, width: int
) -> None:
    table = torch.randn(50, width).to(stored)
    ids = torch.tensor([3, 3, 49, 0], dtype=torch.int32)
    norm = Norm(torch.nn.LayerNorm(width), dtype=dtype)
    expected = norm(Embedding(table.float(), dtype=dtype)(ids))
    assert torch.equal(norm(Embedding(table, dtype=dtype)(ids)), expected)


def copied(source: ModelFolder, precision: Resolved) -> Forward:
    """Return the forward of a model of transformers whose weights are all in memory in fp32."""
    model, how = transformers_model(source), numerics(precision)
    family = family_of(source.config)
    assert isinstance(family, Family)
    attention, stack = GroupedAttention(), Stacks(None).kept
    kernels = Kernels(how.dtype, how.linear, attention, GroupedCausalAttention(), stack)
    return family.forward(model.base_model, family.own_head(model), kernels)


def transformers_model(source: ModelFolder) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(source.path, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model.eval()


def batch_of(source: ModelFolder) -> TokenBatch:
    window = encoder_for(source, max_length=64).encode(mixed_window())
    order = np.argsort(-window.lengths, kind="stable")
    return TokenBatch.of(window, order)


@torch.inference_mode()
def logits_of(forward: Forward, batch: TokenBatch) -> torch.Tensor:
    return forward.forward(batch)


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def resident_kb(folder: Path) -> int:
    """Return how much of a folder's weights is in this process's memory."""
    resident, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            is_ours = str(folder) in line
        elif is_ours and line.startswith("Rss:"):
            resident += int(line.split()[1])
    return resident


def _rewrite(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    tensors = {name: change(name, tensor) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
