"""A checkpoint as OpenVINO and ONNX files, in fp32 and int8, as Optimum makes them."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench.engine.sides import Pairs

_OPSET = 17
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

# Pairs that OpenVINO's static quantization is calibrated with; more do not make it faster.
_CALIBRATION_PAIRS = 16


class Exports:
    """The files of one checkpoint, each made when it is first asked for."""

    def __init__(self, folder: Path, target: Path, calibration: Pairs) -> None:
        self.folder = folder
        self._target = target
        self._calibration = calibration[:_CALIBRATION_PAIRS]

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    def openvino(self) -> Path:
        """Return the model in fp32; a precision of activations is chosen on loading."""
        return self._made("model.xml", self._export_openvino)

    def openvino_int8(self) -> Path:
        """Return the model quantized by NNCF with the defaults of OVQuantizationConfig."""
        return self._made("int8.xml", self._quantize_openvino)

    def onnx(self) -> Path:
        """Return the model in fp32. ONNX Runtime fuses its parts on loading.

        Its own BERT optimizer, which is Optimum's O2, was no faster.
        """
        return self._made("model.onnx", self._export_onnx)

    def onnx_int8(self) -> Path:
        """Return the model quantized with the settings of Optimum's avx512_vnni."""
        return self._made("int8.onnx", self._quantize_onnx)

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        path = self._target / name
        if not path.exists():
            with _quiet():
                make(path)
        return path

    def _export_openvino(self, path: Path) -> None:
        import openvino

        example = self._example()
        shapes = [(name, openvino.PartialShape([-1, -1]), openvino.Type.i64) for name in example]
        model = openvino.convert_model(
            _Logits(self.folder, self._attention()), example_input=example, input=shapes
        )
        openvino.save_model(model, path, compress_to_fp16=False)

    def _attention(self) -> str:
        """Return the attention that OpenVINO converts.

        With SDPA, a padded token of a local layer sees no key, and its NaN reaches all others.
        OpenVINO fuses the eager one too, and is as fast.
        """
        config = json.loads((self.folder / "config.json").read_text())
        return "eager" if config["model_type"] == "modernbert" else "sdpa"

    def _quantize_openvino(self, path: Path) -> None:
        import nncf
        import openvino

        inputs = [
            dict(self.tokenizer(*pair, truncation="longest_first", return_tensors="np"))
            for pair in self._calibration_texts()
        ]
        model = nncf.quantize(
            openvino.Core().read_model(self.openvino()),
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=True,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE
            ),
        )
        openvino.save_model(model, path, compress_to_fp16=False)

    def _calibration_texts(self) -> list[tuple[list[str], list[str]]]:
        return [([query], [document]) for query, document in self._calibration]

    def _export_onnx(self, path: Path) -> None:
        example = self._example()
        dynamic = {name: {0: "pairs", 1: "tokens"} for name in example}
        torch.onnx.export(
            _Logits(self.folder, "eager"),
            tuple(example.values()),
            path,
            dynamo=False,  # as Optimum
            opset_version=_OPSET,
            input_names=list(example),
            output_names=["logits"],
            dynamic_axes=dynamic | {"logits": {0: "pairs"}},
        )

    def _quantize_onnx(self, path: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            self.onnx(),
            path,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )

    def _example(self) -> dict[str, torch.Tensor]:
        features = self.tokenizer(
            [query for query, _ in self._calibration[:2]],
            [document for _, document in self._calibration[:2]],
            padding=True,
            truncation="longest_first",
            return_tensors="pt",
        )
        return {name: features[name] for name in _INPUTS if name in features}


class _Logits(torch.nn.Module):
    """A model with its logits as the only output."""

    def __init__(self, folder: Path, attention: str) -> None:
        from transformers import AutoModelForSequenceClassification

        super().__init__()
        self._model = AutoModelForSequenceClassification.from_pretrained(
            folder, attn_implementation=attention, dtype=torch.float32
        )
        self.eval()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: torch.Tensor = self._model(
            input_ids=input_ids, attention_mask=attention_mask, **types, return_dict=False
        )[0]
        return logits


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters print about every model; the tables alone go to stdout."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
