"""Join two outputs in a database: common pairs and queries, and how each query changed.

Keys are numbers of 128 bits: integers as they are, for all else the MD5, computed by DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from producer.quality.drift.ranked import Key, Ranked, keyed_rows
from producer.tables.database import Database, Feed
from rankmill.contract.drift import RBO_DEPTH, RBO_P, Churn, Presence

_DIGITS = 12  # of figures that are summed in an order that varies between runs


@dataclass(frozen=True)
class SideCounts:
    """Rows, distinct pairs and queries of one output."""

    n_rows: int
    n_pairs: int
    n_queries: int


@dataclass(frozen=True)
class ChangedKey:
    """A query by its number among those chosen, how far its order changed, and its sizes."""

    number: int
    rbo: float
    n_before: int
    n_after: int


@dataclass(frozen=True)
class PlaceKey:
    """A document's position in a part, its place, and its place on the other side."""

    number: int
    place: int
    other_place: int | None
    rank: int
    position: int
    score: float


class Joined:
    """The tables `old`, `new`, `common` (pairs in both) and `queries` (queries in both).

    If a query names a document twice, the better place counts and later ones move up.
    """

    def __init__(
        self,
        database: Database,
        old: Ranked,
        new: Ranked,
        keys: tuple[Key, Key],
        ks: Sequence[int],
    ) -> None:
        self._database, self._ks = database, ks
        n_rows = [self._load("old", old, keys), self._load("new", new, keys)]
        for statement in (_COMMON, _SIZES, _queries(ks)):
            database.run(statement)
        self.old, self.new = (
            SideCounts(n, *database.rows(_COUNTS.format(side=side))[0])
            for n, side in zip(n_rows, ("old", "new"), strict=True)
        )

    def pairs(self) -> Presence:
        """Return how many pairs are in both outputs, and in one only."""
        return Presence.of(self.old.n_pairs, self.new.n_pairs, self._count("common"))

    def queries(self) -> Presence:
        """Return how many queries are in both outputs, and in one only."""
        return Presence.of(self.old.n_queries, self.new.n_queries, self._count("queries"))

    def scores(self) -> Iterator[pa.Table]:
        """Yield `before` and `after` of the common pairs, in no order."""
        return self._database.tables("select before, after from common")

    def overlaps(self) -> Iterator[pa.Table]:
        """Yield the rank-biased overlap `rbo` of the common queries, in no order."""
        return self._database.tables("select rbo from queries")

    def churn(self) -> tuple[Churn, ...]:
        """Return overlap and churn at each k, averaged over the common queries."""
        if not self._count("queries"):
            return ()
        figures = ", ".join(
            f"avg(overlap_{k}), count(*) filter (overlap_{k} < 1)" for k in self._ks
        )
        [row] = self._database.rows(f"select {figures} from queries")
        return tuple(
            Churn(
                k=k,
                overlap=round(overlap, _DIGITS),
                churn=round(1 - overlap, _DIGITS),
                n_changed=n_changed,
            )
            for k, overlap, n_changed in zip(self._ks, row[::2], row[1::2], strict=True)
        )

    def choose_changed(self, n_queries: int) -> list[ChangedKey]:
        """Choose the queries whose order changed most, the most changed first."""
        self._database.run(_CHOOSE.format(n_queries=n_queries))
        rows = self._database.rows("select number, rbo, n_old, n_new from chosen order by number")
        return [ChangedKey(*row) for row in rows]

    def places(self, side: str, other: str, depth: int) -> list[PlaceKey]:
        """Return the first places of the chosen queries on one side, with those on the other."""
        rows = self._database.rows(_PLACES.format(side=side, other=other, depth=depth))
        return [PlaceKey(*row) for row in rows]

    def _load(self, name: str, side: Ranked, keys: tuple[Key, Key]) -> int:
        schema, tables = keyed_rows(side, keys)
        counter = _Counter()
        feed = Feed(schema, counter.watch(tables))
        query, document = (_number(part, schema.field(part).type) for part in schema.names[:2])
        self._database.run(_LOAD.format(name=name, query=query, document=document), feed)
        return counter.n_rows

    def _count(self, table: str) -> int:
        [(n_rows,)] = self._database.rows(f"select count(*) from {table}")
        return int(n_rows)


class _Counter:
    def __init__(self) -> None:
        self.n_rows = 0

    def watch(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            self.n_rows += table.num_rows
            yield table


_LOAD = """
create table {name} as
select *, row_number() over (partition by q order by rank, position)::int as place
from (
    select {query} as q, {document} as d, min(rank) as rank,
        arg_min(score, rank) as score, arg_min(position, rank) as position
    from feed where query is not null and document is not null group by q, d
)
"""

_COMMON = """
create table common as
select q, greatest(old.place, new.place) as met, old.score as before, new.score as after
from old join new using (q, d)
"""

_SIZES = """
create table sizes as
select q, coalesce(n_old, 0) as n_old, coalesce(n_new, 0) as n_new
from (select q, count(*) as n_old from old group by q)
full join (select q, count(*) as n_new from new group by q) using (q)
"""

_COUNTS = "select coalesce(sum(n_{side}), 0)::bigint, count(*) from sizes where n_{side} > 0"

# In RBO_EXT's terms n_long is l, n_short is s, x_long and x_short are the overlaps at these depths.
# A pair counts from the depth on at which both lists have it, `met`: the sum of X_d p^d / d is one
# of differences of `harmonic`, the sum of p^d / d up to a depth; `geometric` is that of p^d.
_QUERIES = """
create table queries as
with sized as (
    select q, n_old, n_new,
        least(n_old, n_new, {depth}) as n_short, least(greatest(n_old, n_new), {depth}) as n_long
    from sizes where n_old > 0 and n_new > 0
), agreed as (
    select q, {overlaps},
        count(*) filter (met <= n_long) as x_long,
        count(*) filter (met <= n_short) as x_short,
        coalesce(sum({harmonic}[met]) filter (met <= n_long), 0) as begun
    from common join sized using (q) group by q
), summed as (
    select sized.*, agreed.* exclude (q), {harmonic}[n_long + 1] as h_long,
        h_long - {harmonic}[n_short + 1] as h_between,
        {geometric}[n_long + 1] - {geometric}[n_short + 1] as g_between
    from sized left join agreed using (q)
)
select q, n_old, n_new, {shares}, coalesce(round(
    {factor} * (x_long * h_long - begun + x_short / n_short * (g_between - n_short * h_between))
    + ((x_long - x_short) / n_long + x_short / n_short) * {power}[n_long + 1], {digits}), 0) as rbo
from summed
"""

_CHOOSE = """
create table chosen as
select row_number() over (order by rbo, n_old + n_new desc, q) as number, q, rbo, n_old, n_new
from queries where rbo < 1 order by number limit {n_queries}
"""

_PLACES = """
select number, mine.place, theirs.place, mine.rank, mine.position, mine.score
from (
    select number, {side}.* from {side} join chosen using (q) where place <= {depth}
) as mine left join (
    select {other}.* from {other} join chosen using (q)
) as theirs using (q, d)
order by number, mine.place
"""


def _queries(ks: Sequence[int]) -> str:
    overlaps = (f"count(*) filter (met <= {k}) as common_{k}" for k in ks)
    shares = (
        f"coalesce(common_{k}, 0) / least({k}, greatest(n_old, n_new)) as overlap_{k}" for k in ks
    )
    depths = range(1, RBO_DEPTH + 1)
    return _QUERIES.format(
        depth=RBO_DEPTH,
        digits=_DIGITS,
        overlaps=", ".join(overlaps),
        shares=", ".join(shares),
        harmonic=_sums(RBO_P**depth / depth for depth in depths),
        geometric=_sums(RBO_P**depth for depth in depths),
        power=_doubles(RBO_P**depth for depth in range(RBO_DEPTH + 1)),
        factor=f"{(1 - RBO_P) / RBO_P:.17e}",
    )


def _sums(terms: Iterable[float]) -> str:
    """Return an SQL list, counted from 1: at d + 1, the sum of the first d terms."""
    sums = [0.0]
    for term in terms:
        sums.append(sums[-1] + term)
    return _doubles(sums)


def _doubles(values: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:.17e}' for value in values)}]"


def _number(part: str, kind: pa.DataType) -> str:
    is_number = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return f"{part}::hugeint" if is_number else f"md5_number({part})"
