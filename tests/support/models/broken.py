"""Ways to break a model folder, each with a part of the line that names what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.models.checkpoints import write_json

Break = Callable[[Path], object]


def text(name: str, content: str) -> Break:
    return lambda folder: (folder / name).write_text(content)


def raw(name: str, content: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content)


def changed(name: str, **values: Any) -> Break:
    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        write_json(path, {**content, **values})

    return change


def without(name: str, *keys: str) -> Break:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        write_json(folder / name, {key: content[key] for key in content if key not in keys})

    return change


def removed(*names: str) -> Break:
    return lambda folder: [(folder / name).unlink() for name in names]


def instead(name: str, make: Callable[[Path], object]) -> Break:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def both(*breaks: Break) -> Break:
    return lambda folder: [each(folder) for each in breaks]


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Break:
    def rewrite(folder: Path) -> None:
        content = load_file(folder / "model.safetensors")
        change(content)
        save_file(content, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def drop(part: str) -> Break:
    return tensors(lambda all_: [all_.pop(name) for name in list(all_) if part in name])


def cut(n_bytes: int) -> Break:
    def change(folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[:n_bytes])

    return change


def header(change: Callable[[dict[str, Any]], Any]) -> Break:
    def rewrite(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        (n_header,) = struct.unpack("<Q", content[:8])
        found = json.loads(content[8 : 8 + n_header])
        change(found)
        new = json.dumps(found).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + n_header :])

    return rewrite


def sharded(change: Callable[[Path, dict[str, str]], Any], metadata: Any = None) -> Break:
    """Two shards and their index, the latter then changed."""

    def rewrite(folder: Path) -> None:
        content = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(content)
        weight_map = {}
        for number, half in enumerate((names[::2], names[1::2]), 1):
            file = f"model-0000{number}-of-00002.safetensors"
            save_file({name: content[name] for name in half}, folder / file)
            weight_map |= dict.fromkeys(half, file)
        change(folder, weight_map)
        index = {"metadata": metadata or {"total_size": 1}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)

    return rewrite


def template(content: str) -> Break:
    return text("chat_template.jinja", content)


def sentence_transformers(**transformer: Any) -> Break:
    """Add the files of Sentence Transformers, with these settings of its Transformer module."""

    def change(folder: Path) -> None:
        kind = "sentence_transformers.base.modules.transformer.Transformer"
        write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
        write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
        stated = {"transformer_task": "sequence-classification", **transformer}
        write_json(folder / "sentence_bert_config.json", stated)

    return change


def module(kind: str, path: str) -> Break:
    kinds = ["sentence_transformers.base.modules.transformer.Transformer", kind]
    listed = [{"path": at, "type": each} for at, each in zip(("", path), kinds, strict=True)]
    return both(
        sentence_transformers(),
        lambda folder: write_json(folder / "modules.json", listed),
    )


def outside(folder: Path) -> Path:
    """Copy a file of the model to a place next to its folder."""
    secret = folder.parent / "outside"
    secret.write_text("{}")
    return secret


LINK_OUT = {
    name: instead(name, lambda path: path.symlink_to(outside(path.parent)))
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors")
}
JSON_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json")
WRONG_JSON: dict[str, Callable[[str], Break]] = {
    "empty": lambda name: text(name, ""),
    "not JSON": lambda name: text(name, "{"),
    "a list": lambda name: text(name, "[1]"),
    "a number": lambda name: text(name, "7"),
    "not UTF-8": lambda name: raw(name, b'{"a": "\xff"}'),
    "UTF-16": lambda name: raw(name, '{"a": 1}'.encode("utf-16")),
    "deep": lambda name: text(name, "[" * 100_000),
    "a folder": lambda name: instead(name, Path.mkdir),
    "a pipe": lambda name: instead(name, os.mkfifo),
    "a link to itself": lambda name: instead(name, lambda path: path.symlink_to(path)),
    "a link to nothing": lambda name: instead(name, lambda path: path.symlink_to("nothing")),
    "a link to a device": lambda name: instead(name, lambda path: path.symlink_to("/dev/zero")),
}

_FEWER = both(
    changed("config.json", num_hidden_layers=3),
    changed("config.json", layer_types=["full_attention", *["sliding_attention"] * 2]),
)

# What it is, the model that is broken, how, and what the line says.
CASES: list[tuple[str, str, Break, str]] = [
    *(
        (f"{name}: {kind}", "bert", make(name), name if name != "tokenizer.json" else "tokenizer")
        for name in JSON_FILES
        for kind, make in WRONG_JSON.items()
    ),
    *((f"{name}: a link out", "bert", each, "link out") for name, each in LINK_OUT.items()),
    ("config huge", "bert", text("config.json", " " * 33_000_000), "33000000 bytes"),
    ("config absent", "bert", removed("config.json"), "no config.json"),
    ("tokenizer absent", "bert", removed("tokenizer.json"), "no tokenizer"),
    ("weights absent", "bert", removed("model.safetensors"), "no weights"),
    ("model_type unknown", "bert", changed("config.json", model_type="nonesuch"), "nonesuch"),
    ("model_type a number", "bert", changed("config.json", model_type=7), "model_type"),
    ("model_type absent", "bert", without("config.json", "model_type"), "config.json"),
    ("architectures a word", "bert", changed("config.json", architectures="Bert"), "architectures"),
    ("negative size", "bert", changed("config.json", hidden_size=-1), "hidden_size is -1"),
    ("zero size", "bert", changed("config.json", num_hidden_layers=0), "num_hidden_layers is 0"),
    ("size a word", "bert", changed("config.json", hidden_size="x"), "hidden_size is x"),
    ("size a fraction", "bert", changed("config.json", vocab_size=1.5), "vocab_size is 1.5"),
    ("a million layers", "bert", changed("config.json", num_hidden_layers=10**6), "1000000"),
    (
        *("endless positions", "bert", changed("config.json", max_position_embeddings=10**12)),
        "max_position_embeddings",
    ),
    ("heads do not divide", "bert", changed("config.json", num_attention_heads=5), "attention"),
    (
        *("heads do not divide", "modernbert", changed("config.json", num_attention_heads=5)),
        "heads|attention",
    ),
    ("wider than its weights", "bert", changed("config.json", hidden_size=64), "by config.json"),
    ("more layers than weights", "bert", changed("config.json", num_hidden_layers=9), "lack"),
    ("fewer layers than weights", "bert", changed("config.json", num_hidden_layers=2), "hold"),
    ("fewer layers, modern", "modernbert", _FEWER, "weights hold"),
    ("another activation", "bert", changed("config.json", hidden_act="nonesuch"), "nonesuch"),
    ("dtype unknown", "bert", changed("config.json", dtype="nonesuch"), "nonesuch"),
    ("no labels", "bert", changed("config.json", id2label={}), "0 labels"),
    ("labels a word", "bert", changed("config.json", num_labels="x"), "config.json"),
    ("labels a list", "bert", changed("config.json", id2label=[1]), "config.json"),
    (
        *("three labels", "bert", changed("config.json", id2label={"0": "a", "1": "b", "2": "c"})),
        "3 labels",
    ),
    ("labels not stated", "bert", without("config.json", "id2label", "label2id"), "id2label"),
    ("another family", "bert", changed("config.json", model_type="roberta"), "lack"),
    ("another family", "xlm-roberta", changed("config.json", model_type="bert"), "lack"),
    (
        *("another task", "modernbert"),
        changed("config.json", architectures=["ModernBertForTokenClassification"]),
        "ModernBertForTokenClassification",
    ),
    (
        *("a language model by its config", "bert"),
        changed("config.json", architectures=["BertForCausalLM"]),
        "causal language model",
    ),
    (
        *("a classifier by its config", "qwen3-chat"),
        changed("config.json", architectures=["Qwen3ForSequenceClassification"]),
        "no classification head",
    ),
    ("quantized", "bert", changed("config.json", quantization_config={}), "quantization_config"),
    (
        *("weights elsewhere", "bert"),
        changed("config.json", transformers_weights="../model.safetensors"),
        "transformers_weights",
    ),
    ("an adapter", "bert", text("adapter_config.json", "{}"), "adapter"),
    ("head removed", "bert", drop("classifier"), "no classification head"),
    ("half a head removed", "bert", drop("classifier.bias"), "lack classifier.bias"),
    ("head of the body removed", "modernbert", drop("head.norm"), "lack head.norm"),
    ("pooler removed", "bert", drop("pooler"), "lack bert.pooler"),
    ("a layer removed", "bert", drop("layer.1."), "lack bert.encoder.layer.1"),
    ("one bias removed", "xlm-roberta", drop("layer.1.output.dense.bias"), "lack"),
    ("everything renamed", "bert", tensors(lambda all_: _rename(all_)), "classification head"),
    ("no tensor", "bert", tensors(lambda all_: all_.clear()), "no tensor"),
    ("one more layer", "bert", tensors(lambda all_: _copy_layer(all_)), "hold bert.encoder"),
    ("a gated layer", "bert", tensors(lambda all_: _gate(all_)), "mlp.gated"),
    ("another shape", "bert", tensors(lambda all_: _halve(all_)), "is \\[16, 32\\]"),
    ("integers", "bert", tensors(lambda all_: _to_integers(all_)), "quantized"),
    ("empty weights", "bert", raw("model.safetensors", b""), "cut short"),
    ("header cut", "bert", cut(100), "cut short"),
    ("one byte cut", "bert", cut(-1), "cut short"),
    ("half cut", "bert", cut(20_000), "cut short"),
    ("not weights", "bert", raw("model.safetensors", b"PK" * 999), "not a safetensors file"),
    ("a pointer", "bert", text("model.safetensors", "version https://git-lfs.x/v1\n"), "Git LFS"),
    (
        *("header of 100 MB", "bert"),
        raw("model.safetensors", struct.pack("<Q", 100_000_000) + b"{}"),
        "cut short",
    ),
    ("header not JSON", "bert", raw("model.safetensors", b"\2" + bytes(7) + b"{{"), "damaged"),
    ("header a list", "bert", raw("model.safetensors", b"\2" + bytes(7) + b"[]"), "damaged"),
    ("offsets out of the file", "bert", header(lambda all_: _shift(all_, 10**9)), "damaged"),
    ("offsets overlap", "bert", header(lambda all_: _shift(all_, -64)), "damaged"),
    ("dtype of a tensor", "bert", header(lambda all_: _retype(all_)), "damaged"),
    ("weights a folder", "bert", instead("model.safetensors", Path.mkdir), "not a file"),
    ("weights a pipe", "bert", instead("model.safetensors", os.mkfifo), "not a file"),
    (
        *("shard elsewhere", "bert"),
        sharded(lambda _, names: names.update(x="../other.safetensors")),
        "other.safetensors",
    ),
    ("shard absolute", "bert", sharded(lambda _, names: names.update(x="/a.safetensors")), "/a"),
    ("shard pickled", "bert", sharded(lambda _, names: names.update(x="evil.bin")), "evil.bin"),
    ("shard a number", "bert", sharded(lambda _, names: names.update(x=7)), "7"),
    (
        *("shard missing", "bert"),
        sharded(lambda folder, _: (folder / "model-00002-of-00002.safetensors").unlink()),
        "missing",
    ),
    (
        *("shard without a tensor", "bert"),
        sharded(lambda _, names: names.update(x="model-00001-of-00002.safetensors")),
        "names 1 tensors.*x",
    ),
    ("empty index", "bert", sharded(lambda _, names: names.clear()), "no weight_map"),
    ("index without metadata", "bert", sharded(lambda *_: None, metadata=[1]), "no metadata"),
    (
        *("index a list", "bert"),
        both(removed("model.safetensors"), text("model.safetensors.index.json", "[]")),
        "instead of an object",
    ),
    ("tokenizer of nothing", "bert", text("tokenizer.json", "{}"), "tokenizer"),
    ("tokenizer cut", "bert", text("tokenizer.json", '{"version": "1.0", "model": '), "tokenizer"),
    ("tokenizer's model", "bert", changed("tokenizer.json", model={"type": "No"}), "tokenizer"),
    (
        *("empty vocabulary", "bert"),
        both(removed("tokenizer.json"), text("vocab.txt", "")),
        "tokenizer",
    ),
    (
        *("fewer embeddings than tokens", "bert"),
        both(changed("config.json", vocab_size=50), tensors(lambda all_: _cut_rows(all_))),
        "50 embeddings",
    ),
    (
        *("fewer token types than the tokenizer", "bert"),
        both(changed("config.json", type_vocab_size=1), tensors(lambda all_: _cut_types(all_))),
        "token type 1",
    ),
    ("template's syntax", "qwen3-chat", template("{% for %}"), "chat template"),
    ("template raises", "qwen3-chat", template("{{ raise_exception('no') }}"), "chat template"),
    ("template divides", "qwen3-chat", template("{{ 1 / 0 }}"), "chat template"),
    ("template escapes", "qwen3-chat", template("{{ ''.__class__.__mro__ }}"), "chat template"),
    (
        *("template recurs", "qwen3-chat"),
        template("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"),
        "chat template",
    ),
    (
        *("template without end", "qwen3-chat"),
        template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        "does not end within",
    ),
    ("template without document", "qwen3-chat", template("{{ messages[0].content }}"), "render"),
    ("template not UTF-8", "qwen3-chat", raw("chat_template.jinja", b"\xff\xfe"), "tokenizer"),
    (
        *("no template, no LogitScore", "qwen3-chat", removed("chat_template.jinja")),
        "without a recipe, a chat template or a LogitScore",
    ),
    (
        "LogitScore lost",
        "qwen3",
        lambda f: shutil.rmtree(f / "1_LogitScore"),
        "with its subfolders",
    ),
    ("LogitScore empty", "qwen3", text("1_LogitScore/config.json", "{}"), "true_token_id"),
    (
        *("LogitScore a word", "qwen3"),
        text("1_LogitScore/config.json", '{"true_token_id": "yes"}'),
        "true_token_id",
    ),
    (
        *("LogitScore out of range", "qwen3"),
        text("1_LogitScore/config.json", '{"true_token_id": 100000000}'),
        "100000000",
    ),
    ("no CrossEncoder", "qwen3", removed("config_sentence_transformers.json"), "LogitScore"),
    ("modules an object", "bert", text("modules.json", "{}"), "modules"),
    ("modules empty", "bert", text("modules.json", "[]"), "modules"),
    ("modules of numbers", "bert", text("modules.json", "[1]"), "modules"),
    ("modules of nothing", "bert", text("modules.json", "[{}]"), "modules"),
    ("module elsewhere", "bert", module("x.Dense", "../outside"), "leads out"),
    ("module absolute", "bert", module("x.Dense", "/etc"), "leads out"),
    (
        *("module unknown", "bert"),
        both(module("x.Mystery", "1_M"), lambda f: write_json(f / "1_M/config.json", {})),
        "Mystery",
    ),
    ("task unknown", "bert", sentence_transformers(transformer_task="fill-mask"), "fill-mask"),
    ("length a word", "bert", sentence_transformers(max_seq_length="x"), "max_seq_length"),
    ("length negative", "bert", sentence_transformers(max_seq_length=-1), "max_seq_length"),
    (
        *("truncation", "bert"),
        sentence_transformers(processing_kwargs={"text": {"truncation": "only_first"}}),
        "only_first",
    ),
    (
        *("processing", "bert"),
        sentence_transformers(processing_kwargs={"text": {"stride": 3}}),
        "text.stride",
    ),
    ("processing a list", "bert", sentence_transformers(processing_kwargs=[1]), "processing"),
    ("modality a word", "bert", sentence_transformers(modality_config="text"), "modality_config"),
    (
        *("images", "bert", sentence_transformers(modality_config={"image": {}})),
        "modality_config has no text",
    ),
    (
        *("messages without a template", "bert"),
        sentence_transformers(modality_config={"message": {"method": "forward"}}),
        "no chat template",
    ),
    ("another tokenizer", "bert", sentence_transformers(tokenizer_name_or_path="a/b"), "a/b|name"),
    (
        *("arguments", "bert", sentence_transformers(config_kwargs={"num_labels": 1})),
        "config_kwargs.num_labels",
    ),
    (
        *("prompt missing", "bert"),
        both(
            sentence_transformers(),
            changed("config_sentence_transformers.json", default_prompt_name="q"),
        ),
        "default_prompt_name 'q'",
    ),
    (
        *("activation", "bert"),
        changed("config.json", sentence_transformers={"activation_fn": "torch.nn.Tanh"}),
        "torch.nn.Tanh.*--activation",
    ),
    (
        *("activation of an older version", "bert"),
        changed("config.json", sbert_ce_default_activation_function="torch.nn.Softmax"),
        "Softmax",
    ),
    (
        *("activation a number", "bert"),
        changed("config.json", sentence_transformers={"activation_fn": 7}),
        "activation",
    ),
    (
        *("settings a word", "bert"),
        changed("config.json", sentence_transformers="x"),
        "sentence_transformers",
    ),
    (
        *("own code", "bert"),
        changed("config.json", model_type="own", auto_map={"AutoConfig": "own.Config"}),
        "RANKMILL_REMOTE_CODE_MODELS",
    ),
    (
        *("code of another repository", "bert"),
        changed("config.json", model_type="new", auto_map={"AutoConfig": "a/b--own.Config"}),
        "another repository, a/b.*gte",
    ),
]


def _rename(content: dict[str, torch.Tensor]) -> None:
    for name in list(content):
        content[f"other.{name.replace('classifier', 'top')}"] = content.pop(name)


def _copy_layer(content: dict[str, torch.Tensor]) -> None:
    for name in [each for each in content if "layer.2." in each]:
        content[name.replace("layer.2.", "layer.3.")] = content[name].clone()


def _gate(content: dict[str, torch.Tensor]) -> None:
    content["bert.encoder.layer.0.mlp.gated_layers.weight"] = torch.zeros(4, 4)


def _halve(content: dict[str, torch.Tensor]) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight"
    content[name] = content[name][:16].clone()


def _cut_rows(content: dict[str, torch.Tensor]) -> None:
    name = "bert.embeddings.word_embeddings.weight"
    content[name] = content[name][:50].clone()


def _cut_types(content: dict[str, torch.Tensor]) -> None:
    name = "bert.embeddings.token_type_embeddings.weight"
    content[name] = content[name][:1].clone()


def _to_integers(content: dict[str, torch.Tensor]) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight"
    content[name] = content[name].to(torch.int8)


def _shift(found: dict[str, Any], n_bytes: int) -> None:
    entry = found["bert.pooler.dense.weight"]
    entry["data_offsets"] = [place + n_bytes for place in entry["data_offsets"]]


def _retype(found: dict[str, Any]) -> None:
    found["bert.pooler.dense.weight"]["dtype"] = "F7"
