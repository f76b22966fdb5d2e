"""A model is known by its names and its architecture; a job's options change its recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankmill.contract.job import JobOptions
from rankmill.models.recipes import published_recipe, recipe_for, registry
from rankmill.placeholders import split
from tests.support.models.published import PUBLISHED

NEMOTRON = "LlamaBidirectionalForSequenceClassification"
QWEN = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


def folder_of(path: Path, **config: Any) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(QWEN | config))
    return path


def test_every_recipe_can_be_read_and_shows_both_texts() -> None:
    names = [each.recipe.name for each in registry()]
    assert len(set(names)) == len(names)
    of_decoders = {name for name in names if not name.startswith("mono")}  # those are T5's
    assert {each.recipe for each in PUBLISHED} == of_decoders
    for each in registry():
        for pieces in filter(None, (each.recipe.pieces, each.recipe.prompted)):
            text = "".join(pieces)
            shown = [part.name for part in split(text, ("query", "document", "prompt", "bos"))]
            assert shown.count("query") == shown.count("document") == 1
            has_prompt = each.recipe.prompt is not None or pieces == each.recipe.prompted
            assert ("prompt" in shown) == has_prompt


@pytest.mark.parametrize(
    ("model_id", "architecture", "recipe"),
    [
        ("Qwen/Qwen3-Reranker-8B", "Qwen3ForCausalLM", "qwen3-reranker"),
        ("qwen/qwen3-reranker-8b", "Qwen3ForCausalLM", "qwen3-reranker"),
        ("Qwen/Qwen3-Reranker-8B", "Qwen3ForSequenceClassification", "qwen3-reranker-seq-cls"),
        ("a/copy-of-Qwen3-Reranker-8B", "Qwen3ForCausalLM", ""),
        ("Qwen/Qwen3-8B", "Qwen3ForCausalLM", ""),
        ("mixedbread-ai/mxbai-rerank-large-v2", "Qwen2ForCausalLM", "mxbai-v2"),
        ("mixedbread-ai/mxbai-rerank-large-v1", "DebertaV2ForSequenceClassification", ""),
        ("BAAI/bge-reranker-v2-gemma", "GemmaForCausalLM", "bge-gemma"),
        ("BAAI/bge-reranker-v2-m3", "XLMRobertaForSequenceClassification", ""),
        ("castorini/monot5-3b-msmarco-10k", "T5ForConditionalGeneration", "monot5"),
        ("zeroentropy/zerank-1", "Qwen3ForCausalLM", "zerank-1"),
        ("zeroentropy/zerank-2-reranker", "Qwen3ForCausalLM", "zerank-2"),
        ("ContextualAI/ctxl-rerank-v2-instruct-6b", "MistralForCausalLM", "ctxl-rerank-v2"),
        ("nvidia/llama-3.2-nv-rerankqa-1b-v2", NEMOTRON, "nemotron-rerank"),
    ],
)
def test_a_hub_id_and_an_architecture_name_a_recipe(
    tmp_path: Path, model_id: str, architecture: str, recipe: str
) -> None:
    folder = folder_of(tmp_path / "0123abcd", architectures=[architecture])
    assert published_recipe(folder, model_id).name == recipe


def test_a_local_folder_is_known_by_what_names_it(tmp_path: Path) -> None:
    def name(folder: Path) -> str:
        return published_recipe(folder, str(folder)).name

    assert name(folder_of(tmp_path / "Qwen3-Reranker-0.6B")) == "qwen3-reranker"
    assert name(folder_of(tmp_path / "mine")) == ""
    tuned = folder_of(tmp_path / "tuned", _name_or_path="Qwen/Qwen3-Reranker-4B")
    assert name(tuned) == "qwen3-reranker"
    assert name(folder_of(tmp_path / "t2", _name_or_path="/data/Qwen3-Reranker-4B")) != ""
    stored = folder_of(tmp_path / "store" / "Qwen--Qwen3-Reranker-4B" / "0123")
    assert name(stored) == ""
    (stored.parent / "model.json").write_text(json.dumps({"model_id": "Qwen/Qwen3-Reranker-4B"}))
    assert name(stored) == "qwen3-reranker"
    cached = folder_of(tmp_path / "models--Qwen--Qwen3-Reranker-4B" / "snapshots" / "0123")
    assert name(cached) == "qwen3-reranker"
    by_config = {
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
        "model_type": "llama_bidirec",
    }
    assert name(folder_of(tmp_path / "r", **by_config)) == "nemotron-rerank"


def test_a_folder_of_sentence_transformers_states_its_own_recipe(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "Qwen3-Reranker-0.6B")
    (folder / "modules.json").write_text("[]")
    assert published_recipe(folder, str(folder)).name == "qwen3-reranker"
    stated = {"model_type": "CrossEncoder"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(stated))
    assert published_recipe(folder, str(folder)).name == ""


def test_options_replace_parts_of_a_recipe_and_its_digest(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "Qwen3-Reranker-0.6B")
    digests = set()
    for given in (
        *({}, {"prompt": "p"}, {"prompt": "q"}, {"prompt_col": "p"}, {"query_prefix": "p"}),
        *({"document_prefix": "p"}, {"yes_token": "yes"}, {"yes_token": "yes", "no_token": "no"}),
        *({"chat_template": "t"}, {"input_template": "{query}{document}"}),
    ):
        job = JobOptions(input_uri="in", model_id=str(folder), **given)
        recipe = recipe_for(folder, job)
        assert recipe.title == ("qwen3-reranker with options" if given else "qwen3-reranker")
        digests.add(recipe.sha256)
    assert len(digests) == 10
    nothing = folder_of(tmp_path / "mine")
    job = JobOptions(input_uri="in", model_id=str(nothing))
    assert recipe_for(nothing, job).sha256 is None
