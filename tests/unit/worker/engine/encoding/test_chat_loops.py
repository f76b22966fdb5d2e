"""A chat template that does not end for some text is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.support.models.checkpoints import CHAT_TEMPLATE
from worker.engine.encoding.chat import ChatEncoder
from worker.engine.encoding.chat_loops import takes_linear_time
from worker.engine.values import PairWindow

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
SOMETIMES = f"{CHAT_TEMPLATE}{{% if 'again' in messages[1].content %}}{ENDLESS}{{% endif %}}"
PARTS = "{% for c in m.content %}{{ c.text }}{% endfor %}"
MACRO = f"{{% macro f(m) %}}{PARTS}{{% endmacro %}}"


@pytest.fixture
def tokenizer(checkpoints: dict[str, Path]) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(checkpoints["qwen3-chat"])


def test_a_template_that_does_not_end_for_one_text_is_stopped_there(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    plain = ChatEncoder(tokenizer, max_length=64)
    tokenizer.chat_template = SOMETIMES
    encoder = ChatEncoder(tokenizer, max_length=64, limit_s=0.5)
    window = PairWindow(["a", "b"], ["c", "d"])
    assert encoder.encode(window).ids.tolist() == plain.encode(window).ids.tolist()
    with pytest.raises(TimeoutError, match=r"the chat template does not end within 0\.5 s"):
        encoder.encode(PairWindow(["a", "b"], ["c", "again"]))
    assert encoder.encode(window).ids.tolist() == plain.encode(window).ids.tolist()


@pytest.mark.parametrize(
    ("template", "is_linear"),
    [
        (CHAT_TEMPLATE, True),
        (f"{{% for m in messages[::-1] %}}{PARTS}{{% endfor %}}", True),
        (f"{MACRO}{{% for m in messages %}}{{{{ f(m) }}}}{{% endfor %}}", True),
        (f"{MACRO}{{% for m in messages[0].content %}}{{{{ f(m) }}}}{{% endfor %}}", False),
        (f"{{% for m in messages[0].content %}}{PARTS}{{% endfor %}}", False),
        (f"{{% set messages = texts %}}{{% for m in messages %}}{PARTS}{{% endfor %}}", False),
        ("{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}", False),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", False),
        ("{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}{% endcall %}", False),
        ("{% for c in messages[0].content %}{{ range(9999) | list }}{% endfor %}", False),
        ("{% generation %}{% endgeneration %}", False),
        (SOMETIMES, False),
    ],
)
def test_only_nested_loops_need_a_time_limit(template: str, is_linear: bool) -> None:
    assert takes_linear_time(template) is is_linear
