"""What can be read of a model's folder without torch is what the engine finds in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankmill.contract.job import JobOptions
from rankmill.errors import InputError, ModelUnavailable
from rankmill.models.locate import locate_model
from rankmill.models.scoring_settings import check_causal, check_lengths, length_limit
from rankmill.models.weights import check_layers
from rankmill.settings import CHECKOUT
from tests.support.models.checkpoints import BUILDERS, write_json
from tests.support.models.zoo import bert_like
from worker.engine.folder.model_folder import ModelFolder

# Above this, a tokenizer has no limit.
_NO_LIMIT = 2**31 - 1


def engine_limit(folder: Path) -> int | None:
    limit = ModelFolder(folder).length_limit
    return None if limit == _NO_LIMIT else limit


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    content |= values
    write_json(path, {key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_the_limit_is_the_engines(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    folder = BUILDERS[name](tmp_path / "model")
    assert length_limit(folder) == engine_limit(folder)
    for tokens in (48, 10**30):
        change(folder / "tokenizer_config.json", model_max_length=tokens)
        assert length_limit(folder) == engine_limit(folder)


def test_mpnet_counts_positions_from_a_padding_id_of_its_own(tmp_path: Path) -> None:
    folder = bert_like(tmp_path / "model", kind="mpnet")
    config = json.loads((folder / "config.json").read_text())
    assert (config["max_position_embeddings"], config["pad_token_id"]) == (514, 0)
    change(folder / "tokenizer_config.json", model_max_length=10**30)
    assert length_limit(folder) == engine_limit(folder) == 512


@pytest.mark.parametrize("task", ["sequence-classification", "text-generation"])
@pytest.mark.parametrize(
    "stated",
    [
        {"max_seq_length": 40},
        {"max_seq_length": 40, "tokenizer_args": {"model_max_length": 30}},
        {"processor_kwargs": {"model_max_length": 20}, "tokenizer_args": {"model_max_length": 30}},
        {"processing_kwargs": {"text": {"max_length": 24}}, "max_seq_length": 40},
        {"processing_kwargs": {"text": {"max_length": 24}, "common": {"max_length": 25}}},
        {
            "processing_kwargs": {"text": {"max_length": 24}, "chat_template": {"max_length": 26}},
            "modality_config": {"message": {"method": "forward"}},
        },
        {"max_seq_length": 100_000},
    ],
)
def test_the_limit_of_sentence_transformers_is_the_engines(
    tmp_path: Path, task: str, stated: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    folder = BUILDERS["qwen3-chat"](tmp_path / "model")
    write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    modules = [{"type": "sentence_transformers.base.modules.Transformer", "path": ""}]
    (folder / "modules.json").write_text(json.dumps(modules))
    write_json(folder / "sentence_bert_config.json", {"transformer_task": task, **stated})
    assert length_limit(folder) == engine_limit(folder)


def test_a_longer_pair_than_the_model_takes_is_refused() -> None:
    demo = CHECKOUT / "models" / "demo-reranker"
    check_lengths(JobOptions(input_uri="in", model_id="demo"), demo)
    check_lengths(JobOptions(input_uri="in", model_id="demo", max_length=384), demo)
    with pytest.raises(InputError, match="--max-length 385: demo takes at most 384 tokens"):
        check_lengths(JobOptions(input_uri="in", model_id="demo", max_length=385), demo)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"long_docs": "mean-top3", "passage_tokens": 384}, "--passage-tokens 384"),
        ({"long_docs": "max-passage", "passage_stride": 193}, "--passage-stride 193"),
        ({"max_query_tokens": 400}, "--max-query-tokens 400"),
    ],
)
@pytest.mark.parametrize("max_length", [None, 100])
def test_passages_that_leave_no_room_are_refused(
    options: dict[str, Any], flag: str, max_length: int | None
) -> None:
    job = JobOptions(input_uri="in", model_id="demo", max_length=max_length, **options)
    with pytest.raises(InputError, match=f"^{flag}: a pair has at most {max_length or 384} tokens"):
        check_lengths(job, CHECKOUT / "models" / "demo-reranker")


def test_a_model_without_a_tokenizer_has_no_passages() -> None:
    check_lengths(JobOptions(input_uri="in", model_id="null"), None)
    job = JobOptions(input_uri="in", model_id="null", max_document_tokens=9)
    with pytest.raises(InputError, match=r"^--max-document-tokens 9: null reads no tokens"):
        check_lengths(job, None)
    job = JobOptions(input_uri="in", model_id="null", prompt_col="ask")
    with pytest.raises(InputError, match=r"^--prompt-col: null reads no text"):
        check_lengths(job, None)


def test_a_language_model_that_does_not_say_how_it_reranks_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = BUILDERS["qwen3-chat"](tmp_path / "model")
    check_causal(folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(
        ModelUnavailable,
        match=r"without a recipe.*--input-template",
    ):
        locate_model(str(folder))
    change(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    check_causal(folder)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_weights_that_lack_a_tensor_of_a_layer_are_refused(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    folder = BUILDERS[name](tmp_path / "model")
    check_layers(folder)
    tensors = load_file(folder / "model.safetensors")
    last = [key for key in tensors if ".1." in key and "layer" in key and "classifier" not in key]
    tokens = [
        key for key in tensors if key.endswith(("d_embeddings.weight", "k_embeddings.weight"))
    ]
    tokens += [key for key in tensors if key.endswith("embed_tokens.weight")]
    assert len(tokens) == 1
    save_file(
        {key: tensors[key] for key in tensors if key not in tokens}, folder / "model.safetensors"
    )
    with pytest.raises(ModelUnavailable, match="the weights lack the embeddings of tokens"):
        locate_model(str(folder))
    for lacking in ([last[0]], last):
        left = {key: value for key, value in tensors.items() if key not in lacking}
        save_file(left, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelUnavailable, match=r"the weights lack .*\.1\."):
            locate_model(str(folder))
