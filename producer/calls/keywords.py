"""The keywords of Python's calls: job options by the names of the flags, and errors that name them.

`--top-k 10` of the command line is `top_k=10`, and `--cluster` is `cluster=True`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from os import PathLike
from typing import TypedDict, TypeVar

from rankmill.contract.base import parse_given
from rankmill.contract.job import Activation, JobOptions, Layout, LongDocs, Precision
from rankmill.errors import InputError, RankmillError

OptionsT = TypeVar("OptionsT", bound=JobOptions)
Place = str | PathLike[str]

# The flags that have another name than their field.
_FIELDS = {"model": "model_id", "revision": "model_revision"}
_KEYWORDS = {field: keyword for keyword, field in _FIELDS.items()}

# A flag, unless it is part of a command for the shell.
_FLAG = re.compile(r"(?P<command>rankmill [a-z][^;]*)|--(?P<flag>[a-z][a-z0-9-]*)")
_SWITCHES = {name for name, field in JobOptions.model_fields.items() if field.annotation is bool}
_SWITCHES |= {"overwrite", "calibrate"}


class JobKeywords(TypedDict, total=False):
    """The options of a job; docs/options.md describes each.

    `model` and `revision` are also `model_id` and `model_revision`.
    """

    model: str
    model_id: str
    revision: str | None
    model_revision: str | None
    layout: Layout
    queries: Place | None
    corpus: Place | None
    input_version: str | None
    queries_version: str | None
    corpus_version: str | None
    query_col: str
    columns: Sequence[str] | str | None
    document_col: str
    title_col: str | None
    query_id_col: str | None
    doc_id_col: str | None
    keep_cols: Sequence[str] | str | None
    fuse: str | None
    fuse_col: str | None
    fuse_k: int
    fuse_weight: float
    explode: bool
    trec_run: bool
    cluster: bool
    duplicates: str
    damaged: str
    prompt: str | None
    prompt_col: str | None
    chat_template: str | None
    input_template: str | None
    yes_token: str | None
    no_token: str | None
    query_prefix: str | None
    document_prefix: str | None
    top_k: int | None
    max_length: int | None
    long_docs: LongDocs
    passage_tokens: int | None
    passage_stride: int
    max_query_tokens: int | None
    max_document_tokens: int | None
    precision: Precision
    activation: Activation
    max_batch_tokens: int | None
    shard_pairs: int | None
    priority: int
    max_reject_rate: float
    reuse_from: Place | None
    for_reuse: bool


def keyword(field: str) -> str:
    """Return the keyword of a job option's field."""
    return _KEYWORDS.get(field, field)


def options_of(
    contract: type[OptionsT],
    call: str,
    places: Mapping[str, Place],
    options: Mapping[str, object],
    own: Sequence[str] = (),
) -> OptionsT:
    """Return the options of a job from the arguments of a call.

    Args:
        contract: JobOptions or JobSpec.
        call: the call's name, for errors.
        places: the fields `input_uri` and `output_uri`.
        options: the other arguments, by the names of JobKeywords.
        own: the other keywords of the call, to suggest one.

    Raises:
        InputError: an argument is unknown or wrong; the line names it.
    """
    known = [keyword(name) for name in JobKeywords.__annotations__]
    values: dict[str, object] = {name: str(place) for name, place in places.items()}
    for name, value in options.items():
        field = _FIELDS.get(name, name)
        if name not in JobKeywords.__annotations__:
            near = get_close_matches(name, [*known, *own], 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{call}() has no argument {name}{meant}")
        if field in values:
            raise InputError(f"{call}() has {keyword(field)} twice, also as {field}")
        values[field] = _plain(value)
    for name in ("keep_cols", "columns"):
        given = values.get(name)
        if isinstance(given, str):
            values[name] = tuple(given.split(","))
    return parse_given(contract, values, f"{call}()", keyword)


def _plain(value: object) -> object:
    if isinstance(value, PathLike):
        return str(value)
    return tuple(value) if isinstance(value, list) else value


@contextmanager
def in_python(names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Raise the errors of the block with Python's keywords in the place of flags.

    Args:
        names: texts to show as others, such as the name of a private file.
    """
    try:
        yield
    except RankmillError as error:
        text = str(error)
        for shown, name in (names or {}).items():
            text = text.replace(shown, name)
        error.args = (_FLAG.sub(_keyword_of, text),)
        raise


def _keyword_of(found: re.Match[str]) -> str:
    if found["command"]:
        return found["command"]
    name = found["flag"].replace("-", "_")
    if name in _SWITCHES:
        return f"{name}=True"
    positive = name.removeprefix("no_")
    return f"{positive}=False" if name != positive and positive in _SWITCHES else name
