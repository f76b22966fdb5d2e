"""The check of a message: what Celery writes passes, and a line says what is wrong with others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.errors import InputError
from tests.support.messages import BAD, GOOD, GOOD_BODY, parts
from worker.admission.message import check_message, check_unacked


@pytest.mark.parametrize("what", BAD)
def test_a_bad_message_is_refused_with_a_line(what: str) -> None:
    content, said = BAD[what]
    with pytest.raises(InputError) as caught:
        check_message(content)
    line = str(caught.value)
    assert said in line and "\n" not in line and len(line) <= 1000


@pytest.mark.parametrize("what", GOOD)
def test_what_celery_writes_passes(what: str) -> None:
    check_message(GOOD[what])
    check_unacked(json.dumps([json.loads(GOOD[what]), "", "rankmill.score"]).encode())


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
HEADERS = sorted(
    parts(b"")["headers"].keys() | {"eta", "expires", "timelimit", "retries", "stamps"}
)
PROPERTIES = sorted(parts(b"")["properties"])


@settings(max_examples=150)
@given(part=st.sampled_from(["headers", "properties"]), value=ANYTHING, data=st.data())
def test_a_value_of_any_type_is_refused_or_passes(part: str, value: Any, data: Any) -> None:
    message = parts(GOOD_BODY)
    name = data.draw(st.sampled_from(HEADERS if part == "headers" else PROPERTIES))
    message[part][name] = value
    try:
        check_message(json.dumps(message).encode())
    except InputError as error:
        assert "\n" not in str(error)


@settings(max_examples=100)
@given(content=st.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_refused(content: bytes) -> None:
    for check in (check_message, check_unacked):
        with pytest.raises(InputError):
            check(content)


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"5",
        b"[]",
        b"[1, 2, 3]",
        b'[{}, "", "rankmill.score"]',
        json.dumps([parts(GOOD_BODY), "", "rankmill:running"]).encode(),
        json.dumps([parts(GOOD_BODY), None, "rankmill.score"]).encode(),
        json.dumps([parts(GOOD_BODY), "", "rankmill.score", 4]).encode(),
        json.dumps([parts(b"[]"), "", "rankmill.score"]).encode(),
    ],
)
def test_an_entry_that_holds_no_message_is_refused(entry: bytes) -> None:
    with pytest.raises(InputError):
        check_unacked(entry)
