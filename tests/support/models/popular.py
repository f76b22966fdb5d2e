"""The checkpoint of the zoo for each popular model of docs/models.json."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from transformers import AutoModel

from tests.support.models.decoders import (
    qwen3_classifier_st,
    qwen3_st,
    zerank,
)
from tests.support.models.own_code import gte_published, jina_v1, jina_v2, layerwise, nemotron
from tests.support.models.published import PUBLISHED
from tests.support.models.seq2seq import YES_NO, mono_t5
from tests.support.models.zoo import (
    IDENTITY,
    bert_like,
    deberta,
    ettin,
    gte,
    modernbert,
    modules,
    xlm_roberta,
)


def embedder(folder: Path) -> Path:
    """Write an embedding model as Sentence Transformers publishes them."""
    listed = [
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    return bert_like(
        folder,
        auto=AutoModel,
        files={
            "modules.json": modules(*listed),
            "1_Pooling/config.json": {
                "word_embedding_dimension": 32,
                "pooling_mode_cls_token": True,
            },
            "config_sentence_transformers.json": {"__version__": {"transformers": "4.28.1"}},
            "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": True},
        },
    )


CONTEXTUAL = "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b"
MINIATURES = {each.model_id: each.write for each in PUBLISHED}

# The keys are the names in docs/models.json.
ZOO: dict[str, Callable[[Path], Path]] = {
    "BAAI/bge-reranker-base": partial(xlm_roberta, positions=514),
    "BAAI/bge-reranker-v2-m3": partial(xlm_roberta, positions=8194),
    "BAAI/bge-reranker-v2-gemma": MINIATURES["BAAI/bge-reranker-v2-gemma"],
    "BAAI/bge-reranker-v2-minicpm-layerwise": partial(
        layerwise, name="LayerWiseMiniCPM", model_type="minicpm"
    ),
    "BAAI/bge-reranker-v2.5-gemma2-lightweight": partial(
        layerwise, name="CostWiseGemma", model_type="cost_wise_gemma"
    ),
    "BAAI/bge-small-en-v1.5": embedder,
    "cross-encoder/ms-marco-MiniLM-L6-v2": partial(bert_like, config=IDENTITY),
    "cross-encoder/ms-marco-TinyBERT-L2-v2": partial(
        bert_like,
        config={
            "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
        },
    ),
    "cross-encoder/ms-marco-electra-base": partial(bert_like, kind="electra", config=IDENTITY),
    "cross-encoder/nli-deberta-v3-base": partial(deberta, num_labels=3),
    "cross-encoder/ettin-reranker-17m-v1": ettin,
    "a DistilBERT classifier": partial(bert_like, kind="distilbert"),
    "an ALBERT classifier": partial(bert_like, kind="albert"),
    "a EuroBERT classifier": partial(bert_like, kind="eurobert"),
    "an MPNet classifier": partial(bert_like, kind="mpnet"),
    "mixedbread-ai/mxbai-rerank-xsmall-v1": deberta,
    "mixedbread-ai/mxbai-rerank-base-v2": MINIATURES["mixedbread-ai/mxbai-rerank-base-v2"],
    "Alibaba-NLP/gte-reranker-modernbert-base": partial(modernbert, pooling="mean"),
    "Alibaba-NLP/gte-multilingual-reranker-base": gte_published,
    "the same in transformers' own gte": gte,
    "ibm-granite/granite-embedding-reranker-english-r2": partial(modernbert, config=IDENTITY),
    "jinaai/jina-reranker-v1-tiny-en": jina_v1,
    "jinaai/jina-reranker-v2-base-multilingual": jina_v2,
    "Qwen/Qwen3-Reranker-0.6B": MINIATURES["Qwen/Qwen3-Reranker-0.6B"],
    "Qwen/Qwen3-Reranker-0.6B with Sentence Transformers' files": qwen3_st,
    "tomaarsen/Qwen3-Reranker-0.6B-seq-cls": MINIATURES["tomaarsen/Qwen3-Reranker-0.6B-seq-cls"],
    "the same with Sentence Transformers' files": qwen3_classifier_st,
    "zeroentropy/zerank-2 with Sentence Transformers' files": zerank,
    "zeroentropy/zerank-2": MINIATURES["zeroentropy/zerank-2"],
    "zeroentropy/zerank-1-small": MINIATURES["zeroentropy/zerank-1-small"],
    CONTEXTUAL: MINIATURES[CONTEXTUAL],
    "nvidia/llama-nemotron-rerank-1b-v2": nemotron,
    "castorini/monot5-base-msmarco": mono_t5,
    "unicamp-dl/mt5-base-mmarco-v2": partial(mono_t5, model_type="mt5", answers=YES_NO),
}
