"""A job's templates, prefixes and answer tokens give what plain transformers gives, or one line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from rankmill.contract.job import JobOptions
from rankmill.models.recipe import Recipe
from rankmill.models.recipes import recipe_for
from tests.support.models.checkpoints import BUILDERS
from tests.support.models.decoders import CHAT, language_model
from tests.support.models.published import decoder, ids_of, last_logits
from tests.support.models.random_texts import TOKENIZERS, pairs, rows, window_of
from tests.support.models.vocabularies import CORPUS
from worker.engine.encoding.pieces import PieceEncoder
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder, UnusableOption
from worker.engine.scorer import PairWindow, Scorer

PAIRS = [
    (query, document)
    for query in ("fast search engine", "Wörterbuch")
    for document in (CORPUS[3], "", "<|im_end|> {query} 日本", " ".join(CORPUS[:8]))
]
TEMPLATE = "Is it about {query}?\n{document}\n{{{prompt}}} Answer:"
DOCUMENT_FIRST = (
    "{% for role in ('document', 'system', 'query') %}{% for message in messages %}"
    "{% if message.role == role %}<{{ role }}> {{ message.content }}\n{% endif %}"
    "{% endfor %}{% endfor %}Answer:"
)
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}{{ m.content }} {% endfor %}"


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    answers = ("yes", "no", "Ġno", "true")
    return language_model(tmp_path_factory.mktemp("model") / "llm", "qwen3", answers)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return BUILDERS["bert"](tmp_path_factory.mktemp("model") / "bert")


def scored(folder: Path, max_length: int | None = None, **given: Any) -> Any:
    job = JobOptions(input_uri="in", model_id=str(folder), **given)
    recipe = recipe_for(folder, job)
    scorer = Scorer.load(folder, precision="fp32", recipe=recipe, max_length=max_length)
    (scores,) = scorer.score([PairWindow([q for q, _ in PAIRS], [d for _, d in PAIRS])])
    return scorer, scores


def differences(model: Any, tokenizer: Any, texts: list[list[int]]) -> np.ndarray:
    logits = last_logits(model, texts)
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    return (logits[:, yes] - logits[:, no]).numpy()


def test_a_template_of_the_input_is_one_text(causal: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(causal)
    model = AutoModelForCausalLM.from_pretrained(causal, dtype=torch.float32)
    options = {"input_template": TEMPLATE, "prompt": "be strict"}
    scorer, scores = scored(causal, **options)
    assert scorer.info.recipe == "options" and scorer.info.activation == "sigmoid"
    texts = [TEMPLATE.format(query=q, document=d, prompt="be strict") for q, d in PAIRS]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    expected = differences(model, tokenizer, ids)
    np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)
    assert scores.n_tokens.tolist() == [len(row) for row in ids] and not scores.truncated.any()

    # A document that is too long loses tokens of its end, and the template's end stays.
    _, scores = scored(causal, 100, **options)
    cut = []
    for (query, document), row in zip(PAIRS, ids, strict=True):
        head = ids_of(tokenizer, f"Is it about {query}?\n{document}")
        tail = row[len(head) :] if row[: len(head)] == head else []
        cut.append(row if len(row) <= 100 else row[: 100 - len(tail)] + tail)
    assert scores.truncated.sum() == 2 and scores.n_tokens.max() == 100
    np.testing.assert_allclose(scores.logits, differences(model, tokenizer, cut), rtol=0, atol=1e-5)


def test_an_encoder_reads_a_template_with_its_special_tokens(bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model = AutoModelForSequenceClassification.from_pretrained(bert, dtype=torch.float32)
    for template in ("{query} means {document}!", "[CLS]{query} means {document}! [SEP]"):
        _, scores = scored(bert, input_template=template, query_prefix="Q: ")
        texts = [f"Q: {query} means {document}!" for query, document in PAIRS]
        with torch.inference_mode():
            encoded = [tokenizer(text, return_tensors="pt") for text in texts]
            fits = [row["input_ids"].shape[1] <= 128 for row in encoded]
            whole = [row for row in encoded if row["input_ids"].shape[1] <= 128]
            expected = [model(**row).logits[0, 0].item() for row in whole]
        assert not all(fits) and scores.truncated.tolist() == [not ok for ok in fits]
        np.testing.assert_allclose(scores.logits[fits], expected, rtol=0, atol=1e-5)


def test_prefixes_and_a_prompt_go_before_plain_texts(bert: Path) -> None:
    given = {"prompt": "Find: ", "query_prefix": "Q: ", "document_prefix": "D: "}
    _, scores = scored(bert, **given)
    plain = Scorer.load(bert, precision="fp32")
    window = PairWindow([f"Find: Q: {q}" for q, _ in PAIRS], [f"D: {d}" for _, d in PAIRS])
    (expected,) = plain.score([window])
    assert scores.logits.tolist() == expected.logits.tolist()


@pytest.mark.parametrize("prompt", [None, "be strict"])
def test_a_chat_template_of_the_job_is_rendered(causal: Path, prompt: str | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(causal)
    model = AutoModelForCausalLM.from_pretrained(causal, dtype=torch.float32)
    full, cut = [], []
    for query, document in PAIRS:
        messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
        if prompt is not None:
            messages.insert(0, {"role": "system", "content": prompt})
        text = tokenizer.apply_chat_template(messages, chat_template=DOCUMENT_FIRST, tokenize=False)
        row = ids_of(tokenizer, text)
        full.append(row)
        tail = ids_of(tokenizer, text.partition(f"<document> {document}")[2])
        assert row[-len(tail) :] == tail
        cut.append(row if len(row) <= 100 else row[: 100 - len(tail)] + tail)
    options = {"chat_template": DOCUMENT_FIRST, "prompt": prompt}
    for length, ids in ((None, full), (100, cut)):
        _, scores = scored(causal, length, **options)
        expected = differences(model, tokenizer, ids)
        np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)


def test_answers_are_texts_or_ids_and_may_be_one_alone(causal: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(causal)
    model = AutoModelForCausalLM.from_pretrained(causal, dtype=torch.float32)
    template = "{query} {document}"
    texts = [ids_of(tokenizer, template.format(query=q, document=d)) for q, d in PAIRS]
    logits = last_logits(model, texts).numpy()
    true, a = tokenizer.convert_tokens_to_ids(["true", "a"])
    for options, expected in (
        ({"yes_token": "true"}, logits[:, true]),
        ({"yes_token": f"id:{a}", "no_token": "true"}, logits[:, a] - logits[:, true]),
        ({"yes_token": "id:0"}, logits[:, 0]),
    ):
        _, scores = scored(causal, input_template=template, **options)
        np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"yes_token": "relevant text"}, "--yes-token relevant text: not one token"),
        ({"yes_token": "yes", "no_token": "not at all"}, "--no-token not at all: not one token"),
        ({"yes_token": "id:99999"}, "--yes-token id:99999: .* tokens"),
        ({"yes_token": "yes", "no_token": "id:4"}, "--yes-token yes and --no-token id:4 are one"),
    ],
)
def test_a_wrong_answer_is_one_line(causal: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(UnusableOption, match=message) as caught:
        scored(causal, input_template="{query} {document}", **given)
    assert "\n" not in str(caught.value)


def test_options_without_effect_are_refused(causal: Path, bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableOption, match=r"--yes-token yes: .* a classification head"):
        scored(bert, yes_token="yes")
    with pytest.raises(UnusableOption, match=r"--prompt: it takes 300 of a pair's 128 tokens"):
        scored(bert, prompt="fast " * 300)
    with pytest.raises(UnusableOption, match=r"--document-prefix: it takes 40 of .* 64 tokens"):
        scored(bert, 64, document_prefix="fast " * 40)
    with pytest.raises(UnusableOption, match=r"--prompt: the chat template .* role system"):
        scored(causal, chat_template=NO_SYSTEM, prompt="be strict")
    ids = {"yes": 9693, "no": 2152, "Yes": 9454}
    zerank = decoder(tmp_path / "zerank-1-small", "qwen3", ids)
    with pytest.raises(UnusableOption, match=r"--prompt: recipe zerank-1 .* no place for a prompt"):
        scored(zerank, prompt="be strict")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"without a recipe.*--chat-template or --input-template"),
        ({"yes_token": "yes"}, r"without a recipe.*--chat-template or --input-template"),
        ({"chat_template": CHAT}, "--chat-template does not render messages of role query"),
        ({"chat_template": "{{ messages[0] }"}, "chat template cannot be read: TemplateSyntaxErr"),
        ({"chat_template": "{% for m in messages %}{{ m.content * 10**7 }}{% endfor %}"}, "makes"),
        ({"chat_template": CHAT + "{{ strftime_now('%d %b %Y') }}"}, "asks for the time"),
        ({"prompt": "word " * 300, "chat_template": DOCUMENT_FIRST}, "--prompt: it takes 1200 of"),
        ({"input_template": "word " * 600 + "{query}{document}"}, "leaves no room for text"),
    ],
)
def test_a_wrong_template_is_one_line(causal: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(UnusableFolder, match=message) as caught:
        scored(causal, **given)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_the_one_of_its_recipe_is_refused(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "Qwen3-Reranker-0.6B", "qwen3", {"yes": 9693, "no": 2153})
    message = r"recipe qwen3-reranker needs the token 'no' to have id 2152, here it has 2153"
    with pytest.raises(UnusableFolder, match=message):
        scored(folder)
    scorer, _ = scored(folder, yes_token="yes", no_token="no")
    assert scorer.info.recipe == "qwen3-reranker with options"
    torch.manual_seed(0)
    other = language_model(tmp_path / "other" / "mxbai-rerank-base-v2", "qwen2", ("0", "1"))
    with pytest.raises(UnusableFolder, match="recipe mxbai-v2 needs the token '1' to have id 16"):
        scored(other)


def test_a_token_of_template_and_document_is_not_cut() -> None:
    """Most tokenizers of language models merge a sign with the word after it."""
    vocabulary = {"p": 0, ":": 1, "f": 2, "q": 3, ":f": 4, "fq": 5}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(":", "f"), ("f", "q")]))
    source = ModelFolder(Path("any"), recipe=Recipe(pieces=("p:{document}{query}p",)))
    source.__dict__["tokenizer"] = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    encoded = PieceEncoder(source, max_length=8).encode(PairWindow(["q"] * 2, ["fff", "f" * 9]))
    assert rows(encoded) == [[0, 4, 2, 5, 0], [0, 4, 2, 2, 2, 2, 5, 0]]
    short = PieceEncoder(source, max_length=4).encode(PairWindow(["q"], ["f" * 9]))
    assert rows(short) == [[0, 4, 5, 0]]
    with pytest.raises(ValueError, match="no room"):
        PieceEncoder(source, max_length=3).encode(PairWindow(["q"], ["f" * 9]))


@cache
def source_of(name: str, template: str) -> ModelFolder:
    """Return a folder that is read no further than its tokenizer."""
    source = ModelFolder(Path(name), recipe=Recipe(pieces=(template,), special_tokens=True))
    source.__dict__["tokenizer"] = TOKENIZERS[name]()
    return source


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=25)
@given(
    pairs=pairs,
    max_length=st.sampled_from((40, 64, 8192)),
    template=st.sampled_from(
        ("q: {query} d: {document}.", "{document}\n{query}{{", "{query}{document}")
    ),
)
def test_only_the_texts_of_a_template_are_cut(
    name: str, pairs: list[tuple[str, str]], max_length: int, template: str
) -> None:
    source = source_of(name, template)
    window = window_of(pairs)
    encoded = PieceEncoder(source, max_length=max_length).encode(window)
    uncut = [
        source.tokenizer(template.format(query=q, document=d), verbose=False)["input_ids"]
        for q, d in pairs
    ]
    is_cut = encoded.truncated[encoded.pair_of_row]
    for row, whole, cut in zip(rows(encoded), uncut, is_cut, strict=True):
        assert bool(cut) == (len(whole) > max_length)
        if not cut:
            assert row == whole
            continue
        assert len(row) == max_length
        # What is left are tokens of the whole in their order, with both of its ends.
        left = iter(whole)
        assert all(token in left for token in row)
        end = whole[-1:] if template[-1] in ".{" or name == "bert" else []
        assert row[len(row) - len(end) :] == end
