"""One schema for files whose columns differ in no value: the types that hold those of all."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from rankmill.errors import InputError
from rankmill.tables.casts import exact_cast

_UNITS = ("s", "ms", "us", "ns")
_MAX_DIGITS_128, _MAX_DIGITS_256 = 38, 76


def unified(
    uris: Sequence[str], schemas: Sequence[pa.Schema], in_all: Collection[str] = ()
) -> pa.Schema:
    """The columns of all files by name, those of the first file first.

    A file that lacks a column has nulls there.

    Args:
        in_all: columns that no file may lack where another has them.

    Raises:
        InputError: a column has types that no type holds, is twice in a file, or is lacking.
    """
    if all(schema.equals(schemas[0]) for schema in schemas):
        return schemas[0]
    kinds: dict[str, pa.DataType] = {}
    seen_in: dict[str, str] = {}
    for uri, schema in zip(uris, schemas, strict=True):
        for field in schema:
            if schema.names.count(field.name) > 1:
                raise InputError(f"{uri}: column '{field.name}' is twice in it; rename one")
            known = kinds.setdefault(field.name, field.type)
            kind = common_type(known, field.type)
            if kind is None or not (_casts(known, kind) and _casts(field.type, kind)):
                raise InputError(
                    f"{uri}: column '{field.name}' is {field.type}, but {known} in "
                    f"{seen_in[field.name]}; write it with one type in all files"
                )
            if field.name not in seen_in or kind != known:
                seen_in[field.name] = uri
            kinds[field.name] = kind
    for uri, schema in zip(uris, schemas, strict=True):
        for name in kinds.keys() - set(schema.names):
            if name in in_all:
                raise InputError(
                    f"{uri}: column '{name}' is missing, which {seen_in[name]} has; the columns "
                    f"there are: {', '.join(schema.names) or 'none'}"
                )
    return pa.schema(list(kinds.items()))


def _casts(kind: pa.DataType, common: pa.DataType) -> bool:
    """Whether Arrow knows a way at all."""
    try:
        exact_cast(pa.chunked_array([], kind), common)
    except pa.ArrowNotImplementedError:
        return False
    return True


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds every value of both as it is, or None.

    Numbers and text are never made of one another, nor integers and floats, nor times with and
    without a zone: their values would read otherwise.
    """
    if one == other:
        return one
    if pa.types.is_null(one) or pa.types.is_null(other):
        return other if pa.types.is_null(one) else one
    for here, there in ((one, other), (other, one)):
        if pa.types.is_dictionary(here):
            value = there.value_type if pa.types.is_dictionary(there) else there
            return common_type(here.value_type, value)
    for is_of_family, common in _FAMILIES:
        if is_of_family(one) and is_of_family(other):
            return common(one, other)
    return None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _common_bytes(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.large_binary() if pa.large_binary() in (one, other) else pa.binary()


def _common_integer(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    signed = [pa.types.is_signed_integer(kind) for kind in (one, other)]
    if signed[0] == signed[1]:
        return max(one, other, key=lambda kind: kind.bit_width)
    unsigned, with_sign = (one, other) if signed[1] else (other, one)
    n_bits = max(2 * unsigned.bit_width, with_sign.bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(n_bits)


def _common_decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    scale = max(one.scale, other.scale)
    n_digits = max(one.precision - one.scale, other.precision - other.scale) + scale
    if n_digits > _MAX_DIGITS_256:
        return None
    return (pa.decimal128 if n_digits <= _MAX_DIGITS_128 else pa.decimal256)(n_digits, scale)


def _finer(one: pa.DataType, other: pa.DataType) -> str:
    return _UNITS[max(_UNITS.index(kind.unit) for kind in (one, other))]


def _common_timestamp(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    return pa.timestamp(_finer(one, other), one.tz) if one.tz == other.tz else None


def _common_time(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    unit = _finer(one, other)
    return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _common_list(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    value = common_type(one.value_type, other.value_type)
    if value is None:
        return None
    is_large = pa.types.is_large_list(one) or pa.types.is_large_list(other)
    return pa.large_list(value) if is_large else pa.list_(value)


def _common_struct(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    names = [field.name for field in one]
    if sorted(names) != sorted(field.name for field in other) or len({*names}) < len(names):
        return None
    kinds = [common_type(one.field(name).type, other.field(name).type) for name in names]
    if None in kinds:
        return None
    return pa.struct(list(zip(names, kinds, strict=True)))


def _common_map(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    key = common_type(one.key_type, other.key_type)
    item = common_type(one.item_type, other.item_type)
    return None if key is None or item is None else pa.map_(key, item)


_FAMILIES = (
    (_is_text, lambda one, other: pa.large_string()),
    (_is_bytes, _common_bytes),
    (pa.types.is_integer, _common_integer),
    (pa.types.is_floating, lambda one, other: max(one, other, key=lambda kind: kind.bit_width)),
    (pa.types.is_decimal, _common_decimal),
    (pa.types.is_timestamp, _common_timestamp),
    (pa.types.is_date, lambda one, other: pa.date64()),
    (pa.types.is_time, _common_time),
    (pa.types.is_duration, lambda one, other: pa.duration(_finer(one, other))),
    (_is_list, _common_list),
    (pa.types.is_struct, _common_struct),
    (pa.types.is_map, _common_map),
)
