"""The base of all messages and control files: frozen, versioned, checked when read.

`version` is the major version. It rises with a field that a reader must not ignore, and readers of
an earlier major decline. `minor` rises with a field that a reader may ignore. Readers of an earlier
minor keep such a field and pass it on. Both are written as low as the fields in use allow, so that
an earlier release reads everything that uses none of the later fields.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from rankmill.errors import InputError, ReleaseTooOld
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


@dataclass(frozen=True)
class Since:
    """Mark a field that earlier releases do not know: `Annotated[str | None, Since(minor=1)]`.

    The field is left out of what is written while it has its default.

    Attributes:
        minor: given for a field that a reader may ignore.
        major: given for a field that a reader must not ignore, such as one that changes a score.
    """

    minor: int = 0
    major: int = 1


class Part(BaseModel):
    """A part of a contract; the contract has its major version.

    Attributes:
        later: the marked fields.
        newest: the newest versions that this release knows.
        minor: written if it is not 0.
    """

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="constants")
    later: ClassVar[dict[str, Since]] = {}
    newest: ClassVar[Since] = Since()

    minor: Annotated[int, Field(strict=True, ge=0)] = 0

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Collect the marked fields."""
        super().__pydantic_init_subclass__(**kwargs)
        marks = {name: field.metadata for name, field in cls.model_fields.items()}
        cls.later = {
            name: mark for name, found in marks.items() for mark in found if isinstance(mark, Since)
        }
        cls.newest = _newest(cls.later.values())

    @model_validator(mode="after")
    def _refuse_unknown_fields(self) -> Self:
        if self.model_extra and self.minor <= self.newest.minor:
            unknown: list[InitErrorDetails] = [
                {"type": "extra_forbidden", "loc": (name,), "input": value}
                for name, value in self.model_extra.items()
            ]
            raise ValidationError.from_exception_data(type(self).__name__, unknown)
        return self

    @model_serializer(mode="wrap")
    def _write_lowest_version(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Leave out later fields that are not in use; a selection of fields gets no version."""
        content: dict[str, Any] = handler(self)
        fields, used = type(self).model_fields, []
        for name, mark in self.later.items():
            if getattr(self, name) == fields[name].get_default(call_default_factory=True):
                content.pop(name, None)
            else:
                used.append(mark)
        written = _newest(used)
        minor = max(written.minor, self.minor if self.model_extra else 0)
        content.pop("minor", None)
        if info.include is None and info.exclude is None:
            if minor:
                content["minor"] = minor
            if "version" in content:
                content["version"] = written.major
        return content


def _newest(marks: Iterable[Since]) -> Since:
    found = (Since(), *marks)
    return Since(max(each.minor for each in found), max(each.major for each in found))


class Contract(Part):
    """A message or a control file.

    Attributes:
        version: the major version.
    """

    version: Annotated[int, Field(strict=True, ge=1)] = 1

    @field_validator("version", mode="after")
    @classmethod
    def _check_known(cls, version: int) -> int:
        if version > cls.newest.major:
            raise _MajorUnknown(version, cls.newest.major)
        return version

    def to_json(self) -> bytes:
        """Return the indented JSON, with a line end."""
        return self.model_dump_json(indent=2).encode() + b"\n"


class _MajorUnknown(Exception):
    """A contract's major version is newer than this release; not an error of validation."""

    def __init__(self, found: int, newest: int) -> None:
        super().__init__(
            f"has contract version {found}, and this release knows {newest}; "
            f"upgrade Rankmill on {socket.gethostname()}"
        )


def parse(
    contract: type[ContractT],
    content: bytes | Mapping[str, Any],
    where: str,
    named: Callable[[str], str] = str,
) -> ContractT:
    """Read a contract that a release of Rankmill has written, from JSON or plain values.

    Args:
        contract: the class to read.
        content: JSON, or the values by field name.
        where: the file or message, for the error; empty if `named` returns flags.
        named: turns a field's name into what a user types.

    Raises:
        InputError: a field is wrong; the message names `where`, the field, its value and what is
            allowed.
        ReleaseTooOld: a newer release wrote it, and this one must not read it.
    """
    return _parsed(contract, content, where, named, extra=None)


def parse_given(
    contract: type[ContractT],
    values: Mapping[str, Any],
    where: str,
    named: Callable[[str], str] = str,
) -> ContractT:
    """Read a contract that a user has written, as `parse` does, and refuse every unknown field."""
    return _parsed(contract, values, where, named, extra="forbid")


def _parsed(
    contract: type[ContractT],
    content: bytes | Mapping[str, Any],
    where: str,
    named: Callable[[str], str],
    extra: Literal["forbid"] | None,
) -> ContractT:
    try:
        if isinstance(content, bytes):
            return contract.model_validate_json(content, extra=extra)
        return contract.model_validate(content, extra=extra)
    except ValidationError as error:
        line = wrong_value(error, named=named, known=contract.model_fields)
        raise InputError(f"{where}: {line}" if where else line) from error
    except _MajorUnknown as error:
        raise ReleaseTooOld(f"{where}: {error}" if where else str(error)) from error
