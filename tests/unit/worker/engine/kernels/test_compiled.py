"""The compiled kernels equal what they replace, to the last bit whatever their neighbours."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support.models.windows import batch_of
from worker.engine.compiled import build
from worker.engine.compiled.library import Library, library
from worker.engine.kernels.compiled_attention import CompiledAttention, compiled_attention
from worker.engine.kernels.compiled_linear import CompiledLinear
from worker.engine.kernels.layers import (
    ACTIVATIONS,
    DenseLinear,
    Embedding,
    Norm,
    activated,
    dense_linear,
    plus,
    times,
)
from worker.engine.kernels.quantized import CompiledInt8Linear, Int8Linear, int8_linear
from worker.engine.kernels.rotary import Rotary

FLAGS = Path("/proc/cpuinfo").read_text().split()
needs = {
    dtype: pytest.mark.skipif(flag not in FLAGS, reason=f"this CPU has no {flag}")
    for dtype, flag in {
        torch.float32: "avx512dq",
        torch.bfloat16: "avx512_bf16",
        torch.int8: "avx512_vnni",
    }.items()
}
DTYPES = [pytest.param(dtype, marks=needs[dtype]) for dtype in (torch.float32, torch.bfloat16)]
LENGTHS = [700, 300, 265, 129, 128, 64, 63, 33, 17, 16, 15, 9, 8, 7, 2, 1, 1]


@pytest.fixture
def kernels() -> Library:
    found = library()
    assert found, "not built: make install-dev"
    return found


def expected_attention(qkv: torch.Tensor, lengths: list[int], window: int | None) -> torch.Tensor:
    outs = []
    for one in qkv[: sum(lengths)].double().split(lengths):
        query, key, value = (part.transpose(0, 1) for part in one.unbind(1))
        scores = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5
        if window is not None:
            place = torch.arange(len(one))
            scores[:, (place[:, None] - place).abs() > window] = float("-inf")
        outs.append((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))
    return torch.cat(outs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [32, 64, 96, 256])
@pytest.mark.parametrize("window", [None, 0, 5, 16, 64, 1000])
def test_attention(kernels: Library, dtype: torch.dtype, head_dim: int, window: int | None) -> None:
    torch.manual_seed(0)
    batch = batch_of(LENGTHS)
    n_tokens = sum(LENGTHS)
    qkv = torch.randn(n_tokens + 3, 3, 2, head_dim).to(dtype)
    qkv[n_tokens:] = float("nan")
    attention = CompiledAttention(kernels)
    every = attention.every_token(qkv, batch, window)
    expected = expected_attention(qkv, LENGTHS, window)
    tolerance = 3e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(every[:n_tokens].double(), expected, rtol=0, atol=tolerance)
    assert not every[n_tokens:].any()
    first = attention.first_token(qkv, batch, window)
    assert torch.equal(first, every[batch.first_tokens.long()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_attentions_bits_depend_on_the_pair_alone(kernels: Library, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    qkv = (torch.randn(sum(LENGTHS), 3, 4, 32) * 3).to(dtype)
    attention = CompiledAttention(kernels)
    together = attention.every_token(qkv, batch_of(LENGTHS))
    torch.set_num_threads(2)  # the fixture `one_thread` restores it
    assert torch.equal(attention.every_token(qkv, batch_of(LENGTHS)), together)
    alone = [attention.every_token(one.clone(), batch_of([len(one)])) for one in qkv.split(LENGTHS)]
    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_scores_do_not_overflow(kernels: Library, dtype: torch.dtype) -> None:
    qkv = torch.full((40, 3, 1, 32), 1e15).to(dtype)
    assert torch.isfinite(CompiledAttention(kernels).every_token(qkv, batch_of([40]))).all()
    qkv[3, 1] = float("nan")
    assert torch.isnan(CompiledAttention(kernels).every_token(qkv, batch_of([40]))).all()


@needs[torch.float32]
def test_other_heads_and_types_are_left_to_torch() -> None:
    assert compiled_attention("cpu", torch.float32, 32)
    assert not compiled_attention("cpu", torch.float32, 48)
    assert not compiled_attention("cpu", torch.float32, 288)
    assert not compiled_attention("cpu", torch.float16, 32)
    assert not compiled_attention("cuda", torch.bfloat16, 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_norm_of_a_sum_of_rows(kernels: Library, dtype: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(0)
    module = nn.LayerNorm(80, bias=has_bias)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    norm = Norm(module, dtype=dtype)
    own = torch.randn(131, 80).to(dtype)
    tables = [torch.randn(7, 80, dtype=stored) for stored in (torch.float16, torch.bfloat16)]
    places = torch.randint(7, (131,), dtype=torch.int32)
    sources = [own, *(Embedding(table, dtype=dtype)(places) for table in tables)]
    exact = own.double() + sum(table.double()[places] for table in tables)
    with torch.inference_mode():
        expected = module.to(dtype).double()(exact)
        total, out = norm.with_sum(*sources)
        tolerance = 2e-6 if dtype == torch.float32 else 5e-2
        torch.testing.assert_close(total.double(), exact, rtol=0, atol=tolerance)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)
        torch.set_num_threads(2)  # the fixture `one_thread` restores it
        assert torch.equal(norm(*sources), out)
        assert torch.equal(norm(own[70:71]), norm(own)[70:71])


@needs[torch.float32]
@pytest.mark.parametrize("place", [-1, 7, 2**31 - 1])
def test_a_row_outside_its_table_is_an_error(kernels: Library, place: int) -> None:
    norm = Norm(nn.LayerNorm(16), dtype=torch.float32)
    embedding = Embedding(torch.randn(7, 16), dtype=torch.float32)
    with pytest.raises(IndexError, match="outside its table"):
        norm(embedding(torch.tensor([0, place], dtype=torch.int32)))
    rotary = Rotary(torch.rand(8), 7, torch.float32)
    with pytest.raises(IndexError, match="outside its table"):
        rotary.at(torch.tensor([0, place], dtype=torch.int32))(torch.randn(2, 3, 1, 16))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation(kernels: Library, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    frequencies, positions = torch.rand(16), torch.randint(90, (131,), dtype=torch.int32)
    qkv = torch.randn(131, 3, 5, 32).to(dtype)
    angles = (positions[:, None].double() * frequencies)[:, None, None]
    pairs = torch.view_as_complex(qkv[:, :2].double().unflatten(-1, (-1, 2)))
    expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
    out = Rotary(frequencies, 90, dtype).at(positions)(qkv.clone())
    tolerance = 3e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(out[:, :2].double(), expected, rtol=0, atol=tolerance)
    assert torch.equal(out[:, 2], qkv[:, 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_in", "n_out", "activation"),
    [(48, 16, "gelu"), (384, 208, None), (2, 1, None), (2048, 96, "silu")]
    + [(64, 7, activation) for activation in sorted(ACTIVATIONS)],
)
def test_linear(
    kernels: Library, dtype: torch.dtype, n_in: int, n_out: int, activation: str | None
) -> None:
    torch.manual_seed(0)
    x, other = torch.randn(259, n_in).to(dtype), torch.randn(259, n_out).to(dtype)
    weight, bias = torch.randn(n_out, n_in) * n_in**-0.5, torch.randn(n_out)
    layer = dense_linear(weight, bias, dtype=dtype, activation=activation)
    assert isinstance(layer, CompiledLinear)
    out = layer(x)
    exact = F.linear(x.double(), weight.to(dtype).double(), bias.to(dtype).double())
    expected = activated(exact, activation)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    for joined, wanted in (
        (plus(layer, x, other), expected + other),
        (times(layer, x, other), expected * other),
    ):
        torch.testing.assert_close(joined.double(), wanted, rtol=tolerance, atol=tolerance)
    torch.set_num_threads(2)  # the fixture `one_thread` restores it
    assert torch.equal(layer(x), out)
    assert torch.equal(torch.cat([layer(some) for some in x.split(3)]), out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_that_is_not_finite_leaves_the_others(kernels: Library, dtype: torch.dtype) -> None:
    x = torch.randn(9, 64).to(dtype)
    layer = dense_linear(torch.randn(48, 64), None, dtype=dtype, activation="gelu")
    expected = layer(x)
    x[4, 63] = float("nan")
    out = layer(x)
    assert out[4].isnan().all()
    assert torch.equal(out[:4], expected[:4])
    assert torch.equal(out[5:], expected[5:])


@needs[torch.bfloat16]
def test_other_linear_layers_are_left_to_torch() -> None:
    for n_out, n_in, dtype in (
        (16, 7, torch.bfloat16),
        (1025, 2048, torch.float32),
        (16, 64, torch.float16),
    ):
        assert isinstance(dense_linear(torch.zeros(n_out, n_in), None, dtype=dtype), DenseLinear)
    assert isinstance(
        dense_linear(torch.zeros(1024, 2048), None, dtype=torch.float32), CompiledLinear
    )


@needs[torch.int8]
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [None, *sorted(ACTIVATIONS)])
@pytest.mark.parametrize("shape", [(48, 16), (384, 208), (64, 7)])
def test_int8_linear(
    kernels: Library, dtype: torch.dtype, activation: str | None, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    n_in, n_out = shape
    x = (torch.randn(131, n_in) * torch.logspace(-3, 2, 131)[:, None]).to(dtype)
    x[5] = 0
    weight, bias = torch.randn(n_out, n_in) * n_in**-0.5, torch.randn(n_out)
    layer = int8_linear(weight, bias, activation=activation)
    assert isinstance(layer, CompiledInt8Linear)
    out = layer(x)
    expected = Int8Linear(weight, bias, activation=activation)(x)
    # Both round the same numbers; where one is half way, they may differ by one of 127.
    allowed = x.float().abs().amax(1, keepdim=True) * (0.02 if dtype == torch.bfloat16 else 0.005)
    assert ((out - expected).abs() <= allowed + 0.02).all()
    torch.set_num_threads(2)  # the fixture `one_thread` restores it
    assert torch.equal(layer(x), out)
    assert torch.equal(torch.cat([layer(row) for row in x.split(1)]), out)


@needs[torch.int8]
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_int8_of_a_number_that_is_not_finite_is_not_finite(wrong: float) -> None:
    layer = int8_linear(torch.randn(16, 64), None)
    x = torch.randn(9, 64)
    expected = layer(x)
    for place in range(64):
        broken = x.clone()
        broken[4, place] = wrong
        out = layer(broken)
        assert not out[4].isfinite().any()
        assert torch.equal(out[:4], expected[:4])
        assert torch.equal(out[5:], expected[5:])


@needs[torch.int8]
def test_int8_of_other_widths_is_left_to_torch() -> None:
    layer = int8_linear(torch.randn(8, 20), None)
    assert isinstance(layer, Int8Linear)
    exact = F.linear(torch.ones(70, 20), torch.zeros(8, 20))
    assert torch.equal(int8_linear(torch.zeros(8, 20), None)(torch.ones(70, 20)), exact)


@needs[torch.float32]
def test_a_thread_that_ends_leaves_no_memory(kernels: Library) -> None:
    """As where a server has a thread for each request."""
    batch = batch_of([2000])
    qkv = torch.randn(len(batch.ids), 3, 1, 64)

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    def attend() -> None:
        CompiledAttention(kernels).first_token(qkv, batch)

    def in_threads(n: int) -> None:
        for _ in range(n):
            thread = threading.Thread(target=attend)
            thread.start()
            thread.join()

    in_threads(3)
    before = resident_mb()
    in_threads(40)  # a buffer has 1.2 MB
    assert resident_mb() - before < 10


def test_a_library_of_other_sources_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = build.library_name()
    for source in Path(build.__file__).parent.glob("*.[ch]"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(build, "_HERE", tmp_path)
    assert build.library_name() == name
    (tmp_path / "cpu.c").write_text((tmp_path / "cpu.c").read_text() + "\n")
    assert build.library_name() != name
    (tmp_path / name).touch()
    assert build.build(tmp_path) == tmp_path / build.library_name()
    assert [one.name for one in tmp_path.glob("*.so")] == [build.library_name()]


def test_a_library_that_cannot_be_loaded_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert library(tmp_path) is None
    assert "install a C compiler" in caplog.text
    (tmp_path / build.library_name()).write_text("not a library")
    library.cache_clear()
    assert library(tmp_path) is None
    assert build.library_name() in caplog.text
    assert len(caplog.messages) == 2
    library.cache_clear()


def test_without_a_compiler_nothing_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert build.build(tmp_path) is None
    assert not list(tmp_path.iterdir())
