"""The back ends of Sentence Transformers: torch by CrossEncoder, OpenVINO and ONNX Runtime.

Optimum, through which Sentence Transformers drives the last two, does not support this version of
transformers. They are driven directly with its settings and the batches of `CrossEncoder.predict`,
without the rest of its overhead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.engine.exports import Exports
from bench.engine.sides import Pairs, Peer
from worker.engine.kernels.precision import Precision, has_fast_bf16

Features = dict[str, np.ndarray]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchPeer:
    """`CrossEncoder.predict`, by default with SDPA where the model supports it."""

    def __init__(
        self, folder: Path, device: str, precision: Precision, attention: str | None = None
    ) -> None:
        from sentence_transformers import CrossEncoder

        self.name = f"torch {precision}"
        settings: dict[str, Any] = {"dtype": _DTYPES[precision]}
        if attention is not None:
            settings["attn_implementation"] = attention
        self._model: Any = CrossEncoder(str(folder), device=device, model_kwargs=settings)

    def predict(self, pairs: Pairs, batch: int) -> np.ndarray:
        logits: np.ndarray = self._model.predict(
            pairs,
            batch_size=batch,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return logits


class ExportedPeer:
    """An exported model, fed as `CrossEncoder.predict` feeds it: sorted, padded to the longest."""

    def __init__(self, name: str, tokenizer: Any, infer: Callable[[Features], np.ndarray]) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._infer = infer

    def predict(self, pairs: Pairs, batch: int) -> np.ndarray:
        order = np.argsort([-len(query) - len(document) for query, document in pairs])
        logits = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), batch):
            rows = order[start : start + batch]
            features = self._tokenizer(
                [pairs[row][0] for row in rows],
                [pairs[row][1] for row in rows],
                padding=True,
                truncation="longest_first",
                return_tensors="np",
            )
            logits[rows] = self._infer(dict(features)).reshape(-1)
        return logits


def openvino_peer(exports: Exports, precision: Precision) -> Peer:
    """Return OpenVINO; what int8 does not quantize is in bf16 where the CPU has it."""
    import openvino

    path = exports.openvino_int8() if precision == "int8" else exports.openvino()
    is_fp32 = precision == "fp32" or (precision == "int8" and not has_fast_bf16())
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32" if is_fp32 else "bf16",
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def infer(features: Features) -> np.ndarray:
        logits: np.ndarray = request.infer(features, share_inputs=True, share_outputs=True)[0]
        return logits

    return ExportedPeer(f"OpenVINO {precision}", exports.tokenizer, infer)


def onnx_peer(exports: Exports, precision: Precision) -> Peer:
    """Return ONNX Runtime; int8 is quantized dynamically."""
    import onnxruntime

    path = exports.onnx_int8() if precision == "int8" else exports.onnx()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def infer(features: Features) -> np.ndarray:
        logits: np.ndarray = session.run(None, features)[0]
        return logits

    return ExportedPeer(f"ONNX Runtime {precision}", exports.tokenizer, infer)


def peers_of(exports: Exports, precision: Precision) -> list[Peer]:
    """Return the peers of a precision on CPU; the first is torch, which has no int8."""
    dtype: Precision = "bf16" if precision == "int8" and has_fast_bf16() else precision
    peers: list[Peer] = [
        TorchPeer(exports.folder, "cpu", "fp32" if dtype == "int8" else dtype),
        openvino_peer(exports, precision),
    ]
    return peers if precision == "bf16" else [*peers, onnx_peer(exports, precision)]
