"""Types that check the values of settings; no message repeats a password."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from rankmill.broker_url import checked_url
from rankmill.devices.choice import check_device


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise _wrong("is empty; name something, or unset it")
    return names


def _check_places(places: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for place in places or ():
        scheme, _, rest = place.partition("://")
        is_object = scheme in ("s3", "hf") and rest.partition("/")[0]
        if not is_object and not place.startswith("/"):
            raise _wrong(
                f"{place} is neither an absolute folder nor s3://bucket/prefix/ nor hf://…"
            )
    return places


def _check_url(url: str) -> str:
    try:
        return checked_url(url)
    except ValueError as error:
        raise _wrong(str(error)) from None


def _check_device(text: str) -> str:
    try:
        return check_device(text)
    except ValueError as error:
        raise _wrong(str(error)) from None


def _check_memory(text: str) -> str:
    # DuckDB would refuse it too, but only while a job is being prepared.
    if not re.fullmatch(r"\s*0*[1-9]\d*(\.\d+)?\s*([kmgt]i?b|%)\s*", text, re.IGNORECASE):
        raise _wrong(f"{text!r} is not an amount of memory; give for example 800MB, 4GB or 2GiB")
    return text


def _wrong(why: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "{why}", {"why": why})


BrokerUrl = Annotated[str, AfterValidator(_check_url)]
DeviceName = Annotated[str, AfterValidator(_check_device)]
Memory = Annotated[str, AfterValidator(_check_memory)]
Names = Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_split)]
Places = Annotated[
    tuple[str, ...] | None, NoDecode, BeforeValidator(_split), AfterValidator(_check_places)
]
