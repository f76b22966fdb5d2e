"""Find one schema for all files of an input, with types that hold every value of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

from producer.tables.column_kinds import is_list
from rankmill.errors import InputError
from rankmill.tables.casts import exact_cast

_UNITS = ("s", "ms", "us", "ns")
_MAX_DIGITS_128, _MAX_DIGITS_256 = 38, 76


def unified(
    uris: Sequence[str], schemas: Sequence[pa.Schema], in_all: Collection[str] = ()
) -> pa.Schema:
    """Return the columns of all files by name, those of the first file first.

    A file that lacks a column has nulls there.

    Args:
        uris: the files, for errors.
        schemas: the schema of each file.
        in_all: columns that no file may lack where another has them.

    Raises:
        InputError: no type holds both types of a column, a file has a column twice, or a file
            lacks a column of `in_all`.
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
            if kind is None or not (_can_cast(known, kind) and _can_cast(field.type, kind)):
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


def _can_cast(kind: pa.DataType, common: pa.DataType) -> bool:
    """Return whether Arrow has a cast between the types at all."""
    try:
        exact_cast(pa.chunked_array([], kind), common)
    except pa.ArrowNotImplementedError:
        return False
    return True


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds every value of both types unchanged, or None.

    There is none for numbers and text, for integers and floats, and for times with and without a
    zone: their values would read differently.
    """
    kinds = (one, other)
    if one == other:
        return one
    if pa.types.is_null(one) or pa.types.is_null(other):
        return other if pa.types.is_null(one) else one
    for here, there in ((one, other), (other, one)):
        if pa.types.is_dictionary(here):
            value = there.value_type if pa.types.is_dictionary(there) else there
            return common_type(here.value_type, value)

    def both(*tests: Callable[[pa.DataType], bool]) -> bool:
        return all(any(test(kind) for test in tests) for kind in kinds)

    types = pa.types
    if both(types.is_string, types.is_large_string):
        return pa.large_string()
    if both(types.is_binary, types.is_large_binary, types.is_fixed_size_binary):
        return pa.large_binary() if pa.large_binary() in kinds else pa.binary()
    if both(types.is_integer):
        return _common_integer(one, other)
    if both(types.is_floating):
        return max(kinds, key=lambda kind: kind.bit_width)
    if both(types.is_decimal):
        scale = max(one.scale, other.scale)
        n_digits = max(one.precision - one.scale, other.precision - other.scale) + scale
        if n_digits > _MAX_DIGITS_256:
            return None
        return (pa.decimal128 if n_digits <= _MAX_DIGITS_128 else pa.decimal256)(n_digits, scale)
    if both(types.is_date):
        return pa.date64()
    if both(types.is_timestamp) or both(types.is_time) or both(types.is_duration):
        return _common_time(one, other)
    return _common_nested(one, other)


def _common_integer(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    signed = [pa.types.is_signed_integer(kind) for kind in (one, other)]
    if signed[0] == signed[1]:
        return max(one, other, key=lambda kind: kind.bit_width)
    unsigned, with_sign = (one, other) if signed[1] else (other, one)
    n_bits = max(2 * unsigned.bit_width, with_sign.bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(n_bits)


def _common_time(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type of timestamps, times of day or durations with the finer unit."""
    unit = max(one.unit, other.unit, key=_UNITS.index)
    if pa.types.is_timestamp(one):
        return pa.timestamp(unit, one.tz) if one.tz == other.tz else None
    if pa.types.is_duration(one):
        return pa.duration(unit)
    return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)


def _common_nested(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type of lists, structs or maps whose inner types hold the values of both."""
    if is_list(one) and is_list(other):
        value = common_type(one.value_type, other.value_type)
        is_large = pa.types.is_large_list(one) or pa.types.is_large_list(other)
        return None if value is None else (pa.large_list if is_large else pa.list_)(value)
    if pa.types.is_map(one) and pa.types.is_map(other):
        key = common_type(one.key_type, other.key_type)
        item = common_type(one.item_type, other.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        names = [field.name for field in one]
        if sorted(names) != sorted(field.name for field in other) or len({*names}) < len(names):
            return None
        kinds = [common_type(one.field(name).type, other.field(name).type) for name in names]
        return None if None in kinds else pa.struct(list(zip(names, kinds, strict=True)))
    return None
