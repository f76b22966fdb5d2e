"""A template of the input is taken with both texts, each brace accounted for, or refused."""

from __future__ import annotations

import pytest

from rankmill.placeholders import Part, check_input_template, split


def test_a_template_is_split_at_its_placeholders() -> None:
    assert split("Q: {query}\nD: {document} {{x}}") == (
        Part("Q: ", "query"),
        Part("\nD: ", "document"),
        Part(" {", None),
        Part("x}", None),
    )


@pytest.mark.parametrize(
    ("template", "has_prompt", "message"),
    [
        ("{query} {passage} {document}", False, "unknown placeholder {passage}; known are {query}"),
        ("{query.__class__}{document}", False, "unknown placeholder {query.__class__}"),
        ("{query!r}{document}", False, "unknown placeholder {query!r}"),
        ("{query:>9}{document}", False, "unknown placeholder {query:>9}"),
        ("{}{document}", False, "unknown placeholder {}"),
        ('{"q": "{query}", "d": "{document}"}', False, "unknown placeholder"),
        ("{query}{document}}", False, "write {{ and }} for braces"),
        ("{query}{document", False, "write {{ and }} for braces"),
        ("{document}", False, "no {query}"),
        ("{query}", False, "no {document}"),
        ("{query}{document}{document}", False, "{document} is there twice"),
        ("{query}{document}", True, "no {prompt}"),
        ("{prompt}{query}{document}", False, "{prompt} needs --prompt or --prompt-col"),
    ],
)
def test_a_wrong_template_is_refused(template: str, has_prompt: bool, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_input_template(template, has_prompt=has_prompt)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_right_template_is_taken() -> None:
    check_input_template("{query} {query} {document} {{}}", has_prompt=False)
    check_input_template("{prompt}{query}{document}", has_prompt=True)
