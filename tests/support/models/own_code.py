"""Miniatures of rerankers whose repositories bring Python code of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tests.support.models.decoders import language_model
from tests.support.models.zoo import bert_like, xlm_roberta


def _own_code(name: str, config_class: str, model_class: str, body: str, auto: str) -> Any:
    """Return the auto_map and the module of a repository with Python code of its own."""
    auto_map = {"AutoConfig": f"{name}.{config_class}", auto: f"{name}.{model_class}"}
    return {"config": {"auto_map": auto_map}, "files": {f"{name}.py": body}}


_JINA_V2 = """
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification as Base
class XLMRobertaFlashConfig(XLMRobertaConfig):
    model_type = "xlm-roberta"
    def __init__(self, use_flash_attn=True, **kwargs):
        super().__init__(**kwargs)
        self.use_flash_attn = use_flash_attn
class XLMRobertaForSequenceClassification(Base):
    config_class = XLMRobertaFlashConfig
"""
_JINA_V1 = """
from transformers import BertConfig, BertForSequenceClassification as Base
class JinaBertConfig(BertConfig):
    model_type = "bert"
    def __init__(self, feed_forward_type="original", emb_pooler=None, **kwargs):
        super().__init__(**kwargs)
        self.feed_forward_type = feed_forward_type
class JinaBertForSequenceClassification(Base):
    config_class = JinaBertConfig
"""
_NEMOTRON = """
from transformers import AutoModel, LlamaConfig, LlamaModel
from transformers import LlamaForSequenceClassification as Base
class LlamaBidirectionalConfig(LlamaConfig):
    model_type = "llama_bidirec"
    def __init__(self, pooling="avg", temperature=1.0, **kwargs):
        self.pooling = pooling
        self.temperature = temperature
        super().__init__(**kwargs)
class LlamaBidirectionalModel(LlamaModel):
    config_class = LlamaBidirectionalConfig
AutoModel.register(LlamaBidirectionalConfig, LlamaBidirectionalModel, exist_ok=True)
class LlamaBidirectionalForSequenceClassification(Base):
    config_class = LlamaBidirectionalConfig
"""
# Scores of several layers at once, in place of logits.
_LAYERWISE = """
from transformers import LlamaConfig, LlamaForCausalLM
class {name}Config(LlamaConfig):
    model_type = "{model_type}"
    def __init__(self, start_layer=1, **kwargs):
        self.start_layer = start_layer
        super().__init__(**kwargs)
class {name}ForCausalLM(LlamaForCausalLM):
    config_class = {name}Config
    def forward(self, input_ids=None, attention_mask=None, cutoff_layers=None, **kwargs):
        out = super().forward(input_ids=input_ids, attention_mask=attention_mask)
        out.logits = tuple(out.logits[..., 0] * scale for scale in (1.0, 2.0))
        return out
"""


def jina_v1(folder: Path) -> Path:
    """Write a model without a table of positions or labels, with other names of gated layers."""
    own = _own_code(
        "modeling_bert",
        "JinaBertConfig",
        "JinaBertForSequenceClassification",
        _JINA_V1,
        auto="AutoModelForSequenceClassification",
    )
    own["config"] |= {"architectures": ["JinaBertModel"], "position_embedding_type": "alibi"}
    own["config"] |= {"feed_forward_type": "geglu", "emb_pooler": "mean"}
    bert_like(folder, without=("id2label", "label2id"), **own)
    weights = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if "position_embeddings" in name:
            continue
        name = name.replace("intermediate.dense", "mlp.gated_layers")
        if ".output.dense" in name and "attention" not in name:
            name = name.replace("output.dense", "mlp.wo")
        weights[name] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def jina_v2(folder: Path) -> Path:
    own = _own_code(
        "modeling_xlm_roberta",
        "XLMRobertaFlashConfig",
        "XLMRobertaForSequenceClassification",
        _JINA_V2,
        auto="AutoModelForSequenceClassification",
    )
    return xlm_roberta(folder, 1026, without=("model_type",), **own)


def gte_published(folder: Path) -> Path:
    """Write a model whose code is in another repository."""
    elsewhere = "Alibaba-NLP/new-impl--"
    auto_map = {
        "AutoConfig": f"{elsewhere}configuration.NewConfig",
        "AutoModelForSequenceClassification": f"{elsewhere}modeling.NewForSequenceClassification",
    }
    config = {"model_type": "new", "architectures": ["NewForSequenceClassification"]}
    return xlm_roberta(folder, 514, config=config | {"auto_map": auto_map})


def nemotron(folder: Path) -> Path:
    own = _own_code(
        "llama_bidirectional_model",
        "LlamaBidirectionalConfig",
        "LlamaBidirectionalForSequenceClassification",
        _NEMOTRON,
        auto="AutoModelForSequenceClassification",
    )
    own["config"] |= {
        "model_type": "llama_bidirec",
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
    }
    auto = AutoModelForSequenceClassification
    return language_model(folder, "llama", with_bos=True, auto=auto, sizes={"num_labels": 1}, **own)


def layerwise(folder: Path, name: str, model_type: str) -> Path:
    own = _own_code(
        "modeling_reranker",
        f"{name}Config",
        f"{name}ForCausalLM",
        _LAYERWISE.format(name=name, model_type=model_type),
        auto="AutoModelForCausalLM",
    )
    own["config"] |= {"model_type": model_type, "architectures": [f"{name}ForCausalLM"]}
    return language_model(folder, "llama", ("yes", "no", "Yes"), with_bos=True, **own)
