"""A language model is run by its recipe, by options alone, or refused in one line with exit 2."""

from __future__ import annotations

from pathlib import Path

import torch

from rankmill.contract.results import Manifest
from rankmill.output.output import Output
from tests.support.command import called
from tests.support.inputs import control, pairs, write
from tests.support.models.published import INSTRUCT, PUBLISHED


def test_a_published_model_runs_without_options(tmp_path: Path) -> None:
    torch.manual_seed(0)
    build = next(each.write for each in PUBLISHED if each.recipe == "qwen3-reranker")
    folder = build(tmp_path / "Qwen3-Reranker-0.6B")
    source = write(pairs(3, 4), tmp_path / "in.parquet")
    common = ("--model", folder, "--precision", "fp32")
    first = called("run", source, tmp_path / "first", *common)
    assert first.returncode == 0, first.stderr
    [scoring] = manifest_of(tmp_path / "first").scoring
    assert scoring.recipe == "qwen3-reranker" and len(str(scoring.recipe_sha256)) == 64
    assert scoring.prompt == INSTRUCT
    page = (control(tmp_path / "first") / "report.html").read_text()
    assert f"<td>qwen3-reranker, prompt <q>{INSTRUCT}</q></td>" in page

    done = called("run", source, tmp_path / "refused", *common, "--yes-token", "two tokens")
    assert done.returncode == 2 and "--yes-token two tokens: not one token" in done.stderr
    assert "Traceback" not in done.stderr


def manifest_of(folder: Path) -> Manifest:
    manifest = Output(str(folder)).read_manifest()
    assert manifest is not None
    return manifest
