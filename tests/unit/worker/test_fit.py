"""A model that does not fit into a GPU is refused with what it needs and what would fit."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rankmill.contract.job import JobSpec
from rankmill.errors import DeviceFull, HostUnfit
from rankmill.settings import CHECKOUT
from worker.fit import Room, Size, check_fits, explain, fitting, fitting_tokens

GIB = 2**30
DEMO = CHECKOUT / "models" / "demo-reranker"


@pytest.fixture(scope="module")
def qwen_4b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the header of a decoder's weights in the shape of Qwen3-4B; the data are a hole."""
    folder = tmp_path_factory.mktemp("qwen")
    hidden, ffn, n_layers = 2560, 9728, 36
    shapes = {"model.embed_tokens.weight": [151_936, hidden], "model.norm.weight": [hidden]}
    for n in range(n_layers):
        rows = {"q": 4096, "k": 1024, "v": 1024}
        shapes |= {
            f"model.layers.{n}.self_attn.{name}_proj.weight": [wide, hidden]
            for name, wide in rows.items()
        }
        shapes |= {
            f"model.layers.{n}.self_attn.o_proj.weight": [hidden, 4096],
            f"model.layers.{n}.mlp.gate_proj.weight": [ffn, hidden],
            f"model.layers.{n}.mlp.up_proj.weight": [ffn, hidden],
            f"model.layers.{n}.mlp.down_proj.weight": [hidden, ffn],
        }
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    config = {"model_type": "qwen3", "hidden_size": hidden, "intermediate_size": ffn}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def room(free_gib: float, total_gib: float, *, has_fp8: bool = False) -> Room:
    return Room("cuda:0", int(free_gib * GIB), int(total_gib * GIB), has_fp8)


def test_weights_are_counted_as_torch_counts_them() -> None:
    model = AutoModelForSequenceClassification.from_pretrained(DEMO, dtype=torch.float32)
    n_bytes = sum(each.numel() * 4 for each in model.parameters())
    size = Size.of(DEMO)
    assert size.weights_bytes("fp32") == n_bytes == 2 * size.weights_bytes("bf16")
    assert (size.hidden, size.ffn) == (128, 512)


def test_what_fits_passes(qwen_4b: Path) -> None:
    size = Size.of(qwen_4b)
    assert 4.0e9 < size.n_parameters < 4.1e9
    check_fits("m", size, "bf16", room(7.6, 16))
    assert size.n_parameters < size.weights_bytes("fp8") < 0.6 * size.weights_bytes("bf16")


@pytest.mark.parametrize(
    ("precision", "place", "error", "advice"),
    [
        ("fp32", room(15, 16), DeviceFull, "--precision bf16 needs 7.5 GiB"),
        ("fp32", room(12, 12), HostUnfit, "--precision bf16 needs 7.5 GiB"),
        ("bf16", room(6, 16), DeviceFull, "stop what else uses it"),
        ("bf16", room(6, 16, has_fp8=True), DeviceFull, "--precision fp8 needs 4."),
        ("bf16", room(4, 4), HostUnfit, "take a GPU with more memory, or a smaller model"),
    ],
)
def test_what_does_not_fit_says_what_would(
    qwen_4b: Path, precision: str, place: Room, error: type[Exception], advice: str
) -> None:
    with pytest.raises(error) as caught:
        check_fits("Qwen/Qwen3-Reranker-4B", Size.of(qwen_4b), precision, place)
    line = str(caught.value)
    need = "15.1" if precision == "fp32" else "7.5"
    assert f"Qwen/Qwen3-Reranker-4B: needs {need} GiB on cuda:0 in {precision} (" in line
    assert f"{place.free / GIB:.1f} GiB of {place.total / GIB:.1f} GiB are free; " in line
    assert advice in line and "\n" not in line


def test_the_batch_that_should_fit_does_by_the_same_arithmetic(qwen_4b: Path) -> None:
    size, place = Size.of(qwen_4b), room(10, 16)
    most = fitting_tokens(size, "bf16", place)
    assert most % 512 == 0 < most

    def need(n: int) -> int:
        return size.weights_bytes("bf16") + size.batch_bytes("bf16", n)

    assert need(most) <= place.free < need(most + 512)
    assert explain(size, "bf16", place).endswith(f"; --max-batch-tokens {most} should fit")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer for a GPU with 10 of 16 GiB free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


def spec(folder: Path, precision: str = "bf16") -> JobSpec:
    return JobSpec(input_uri="i", output_uri="o", model_id=str(folder), precision=precision)


def test_a_model_is_checked_before_it_is_loaded(qwen_4b: Path, gpu: None) -> None:
    with (
        pytest.raises(DeviceFull, match="--precision bf16 needs"),
        fitting(spec(qwen_4b, "fp32"), qwen_4b, "cuda"),
    ):
        raise AssertionError("it was loaded")
    with fitting(spec(qwen_4b, "fp32"), qwen_4b, "cpu"):
        pass


def test_memory_that_runs_out_while_loading_is_explained(qwen_4b: Path, gpu: None) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines")
    with pytest.raises(DeviceFull) as caught, fitting(spec(qwen_4b), qwen_4b, "cuda"):
        raise full
    line = str(caught.value)
    assert "CUDA out of memory. Tried to allocate 2.00 GiB.; it needs 7.5 GiB on cuda in " in line
    assert "--max-batch-tokens " in line and "\n" not in line
    with pytest.raises(ValueError, match="another"), fitting(spec(qwen_4b), qwen_4b, "cuda"):
        raise ValueError("another")
