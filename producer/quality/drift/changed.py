"""Show the queries whose order changed most, with their first places before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from producer.quality.drift.joined import Joined, PlaceKey
from producer.quality.drift.ranked import ROW, Ranked, part_and_row
from rankmill.contract.drift import ChangedQuery, Place
from rankmill.shown import clipped, value_text

_TEXT_CHARS = 200
# A query's rows are neighbours, so few rows are read in vain.
_BATCH_ROWS = 1024

# ("query" or "document", "id" or "text") to a row's value.
_Names = dict[tuple[str, str], Any]


def most_changed(
    joined: Joined, old: Ranked, new: Ranked, n_queries: int, n_places: int
) -> tuple[ChangedQuery, ...]:
    """Return the `n_queries` most changed queries, each with `n_places` before and after."""
    chosen = joined.choose_changed(n_queries)
    before = joined.places("old", "new", n_places)
    after = joined.places("new", "old", n_places)
    names_before, names_after = _read_names(old, before), _read_names(new, after)
    query = {
        each.number: names
        for places, names_of in ((before, names_before), (after, names_after))
        for each, names in zip(places, names_of, strict=True)
    }
    return tuple(
        ChangedQuery(
            query_id=_id(query[each.number].get(("query", "id"))),
            query=_text(query[each.number].get(("query", "text"))),
            rbo=each.rbo,
            n_before=each.n_before,
            n_after=each.n_after,
            before=_places(each.number, before, names_before),
            after=_places(each.number, after, names_after),
        )
        for each in chosen
    )


def _places(number: int, places: Iterable[PlaceKey], names: Iterable[_Names]) -> tuple[Place, ...]:
    return tuple(
        Place(
            place=each.place,
            doc_id=_id(own.get(("document", "id"))),
            document=_text(own.get(("document", "text"))),
            score=each.score,
            other_place=each.other_place,
        )
        for each, own in zip(places, names, strict=True)
        if each.number == number
    )


def _read_names(side: Ranked, places: list[PlaceKey]) -> list[_Names]:
    """Read the ids and texts of each place's row, as far as the parts keep them."""
    wanted: dict[tuple[int, int], set[int]] = defaultdict(set)
    for each in places:
        shard_index, row = part_and_row(each.position)
        wanted[each.number, shard_index].add(row)
    found: dict[tuple[int, int, int], _Names] = {}
    for (_, shard_index), rows in wanted.items():
        for row, rank, names in _rows_between(side, shard_index, min(rows), max(rows)):
            if row in rows:
                found[shard_index, row, rank] = names
    return [found[(*part_and_row(each.position), each.rank)] for each in places]


def _rows_between(
    side: Ranked, shard_index: int, first: int, last: int
) -> Iterable[tuple[int, int, _Names]]:
    """Yield a part's rows from first to last with rank and names; of lists, each candidate."""
    columns = list(dict.fromkeys(side.kept.values()))
    rank = side.order_column
    for table in side.rows(shard_index, [*columns, rank], first, _BATCH_ROWS):
        for row in table.to_pylist():
            if row[ROW] > last:
                return
            yield row[ROW], row[rank], {part: row[name] for part, name in side.kept.items()}


def _id(value: Any) -> int | str | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return value_text(value)


def _text(value: str | None) -> str | None:
    return None if value is None else clipped(value, _TEXT_CHARS)
