"""The base of all messages and control files: frozen, versioned, checked when read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rankmill.errors import InputError
from rankmill.wrong_value import wrong_value

# The length is bounded, and no id can be mistaken for another key of Redis.
JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
OutputUri = Annotated[str, Field(min_length=1, max_length=4096)]

# What a branch, a tag or a commit must not contain, from git-check-ref-format.
_NOT_A_REF = re.compile(
    r"^[-/]|//|/$|(^|/)\.|\.\.|\.$|\.lock(/|$)|@\{|^@$|[\x00-\x20\x7f\\~^:?*\[]"
)


def check_revision(revision: str) -> str:
    """Return the revision if it is a commit or a plain ref name.

    The hub's client joins it to a path, so that `..` would lead out of the cache.

    Raises:
        InputError: the revision is neither.
    """
    is_plain = 0 < len(revision) <= 255 and revision.isprintable()
    if not is_plain or _NOT_A_REF.search(revision):
        raise InputError(
            f"--revision {revision[:80]!r} is not a commit, a branch or a tag, such as main, v1.0 "
            "or refs/pr/1"
        )
    return revision


def _revision_field(revision: str) -> str:
    try:
        return check_revision(revision)
    except InputError as error:
        raise ValueError(str(error)) from None


Revision = Annotated[str, AfterValidator(_revision_field)]

ContractT = TypeVar("ContractT", bound="Contract")


class Contract(BaseModel):
    """A message or a control file; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    version: Literal[1] = 1

    def to_json(self) -> bytes:
        """Return the indented JSON, with a line end."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def parse(
    contract: type[ContractT],
    content: bytes | Mapping[str, Any],
    where: str,
    named: Callable[[str], str] = str,
) -> ContractT:
    """Read a contract from JSON or plain values.

    Args:
        contract: the class to read.
        content: JSON, or the values by field name.
        where: the file or message, for the error; empty if `named` returns flags.
        named: turns a field's name into what a user types.

    Raises:
        InputError: a field is wrong; the message names `where`, the field, its value and what is
            allowed.
    """
    try:
        if isinstance(content, bytes):
            return contract.model_validate_json(content)
        return contract.model_validate(content)
    except ValidationError as error:
        line = wrong_value(error, named=named, known=contract.model_fields)
        raise InputError(f"{where}: {line}" if where else line) from error
