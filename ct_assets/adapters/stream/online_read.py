"""The SQL function that finishes a definition's values at read time, and the reads through it.

What goes here: SQL of the read, reading many entities in one round trip. What does not: the table and its writes
(``online``), reading history (``training_frames``).

For each entity the function takes the rows whose events may lie in the longest window. A row that lies across an edge of
a window is unpacked into its events; any other row counts as one pseudo-event at its last time, carrying its summaries.
Then each aggregate is a SQL aggregate over those with the window as filter: exact at any microsecond, no timer writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream.layout import Kept, Layout
from ct_assets.streaming.definition import Aggregate

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable

# what a reader learns beside the values, in this order, after them
EXTRAS = {
    "_watermark_us": "bigint",
    "_staleness_us": "bigint",
    "_is_stale": "boolean",
    "_version": "jsonb",
    "_place": "bigint",
}
PUBLIC_EXTRAS = {"_watermark": "timestamptz", "_staleness": "interval", "_is_stale": "boolean", "_version": "jsonb"}
_DIGITS = 60  # fractional digits of an exact division before it becomes a double: beyond what could change its rounding
_RESULTS = {"integer": "bigint", "number": "double precision", "string": "text", "timestamp": "timestamptz"}


def entity_type(layout: Layout) -> str:
    """PostgreSQL type of the entity."""
    return "bigint" if layout.definition.schema.column(layout.definition.entity).type == "integer" else "text"


def result_type(layout: Layout, aggregate: Aggregate) -> str:
    """PostgreSQL type of an aggregate's value."""
    found = layout.definition.result_type(aggregate)
    return "numeric" if found.startswith("decimal") else _RESULTS.get(found, found)


def returned(layout: Layout, extras: dict[str, str]) -> str:
    """The columns that a function returns: the entity, each aggregate, then what a reader learns beside them."""
    names = [(layout.definition.entity, entity_type(layout))]
    names += [(a.name, result_type(layout, a)) for a in layout.definition.aggregates]
    return ", ".join(f'"{name}" {kind}' for name, kind in [*names, *extras.items()])


def public_body(layout: Layout, function: str) -> str:
    """The query of the function for people: the same with times as times."""
    values = ", ".join(
        f'"{name}"' for name in [layout.definition.entity, *(a.name for a in layout.definition.aggregates)]
    )
    return f"""
select {values}, timestamptz 'epoch' + _watermark_us * interval '1 microsecond',
       _staleness_us * interval '1 microsecond', _is_stale, _version
from {function}($1, (extract(epoch from $2) * 1000000)::bigint)
order by _place"""


def function_body(layout: Layout, table: str, stream_id: int) -> str:
    """The query of the function of one version; $1 the entities, $2 the moment in microseconds. ``table`` is quoted."""
    definition = layout.definition
    inner = ",\n          ".join(f"{merged(layout, a)} as a{i}" for i, a in enumerate(definition.aggregates))
    stale = "null::boolean"
    if definition.freshness_us is not None:
        stale = f"coalesce($2 - p.fresh_as_of > {definition.freshness_us}, true)"
    values = [finished(layout, a, f"a.a{i}") for i, a in enumerate(definition.aggregates)]
    if definition.freshness_us is not None and definition.on_stale == "null":
        values = [f"case when not {stale} then {value} end" for value in values]
    listed = ",\n       ".join(values)
    acceptance = definition.acceptance
    return f"""
select e.entity,
       {listed},
       p.watermark, case when p.fresh_as_of is not null then greatest($2 - p.fresh_as_of, 0) end, {stale}, p.version, e.place
from unnest($1) with ordinality as e (entity, place)
left join lateral (
    select {inner}
    from {_source(layout, table)}
    where v.t < $2 and v.t >= $2 - {definition.max_window_us}
) a on true
cross join stream.progress({stream_id}, $2, {acceptance.out_of_orderness_us}, {acceptance.idle_timeout_us}) p"""


def _source(layout: Layout, table: str) -> str:
    """The rows of one entity, each unpacked where it must be."""
    longest, tile = layout.definition.max_window_us, layout.tile_us
    names = ["t", *(["o"] if layout.ordered else []), "m", *(f"c{k.position}" for k in layout.kept)]
    rows = f"""{table} r
            where r.entity = e.entity and r.tile between ($2 - {longest}) / {tile} and ($2 - 1) / {tile}
              and r.last_t >= $2 - {longest} and r.first_t < $2"""
    if not layout.summarised:
        unpacked = ", ".join(f"r.{name}" for name in names)
        return f"(select * from {rows} offset 0) r cross join lateral unnest({unpacked}) as v ({', '.join(names)})"
    edges = dict.fromkeys(_tail(a) for a in layout.definition.aggregates)
    across = " or ".join(["r.last_t >= $2", *(f"(r.first_t < {edge} and r.last_t >= {edge})" for edge in edges)])
    unpacked = ["case when r.across then r.t else array[r.last_t] end"]
    unpacked += [f"case when r.across then r.{name} end" for name in names[1:]]
    return f"""(select r.*, ({across}) as across from {rows} offset 0) r
         cross join lateral unnest({", ".join(unpacked)}) as v ({", ".join(names)})"""


def _tail(aggregate: Aggregate) -> str:
    """The first moment of the window that ends before $2."""
    if aggregate.hop_us is None:
        return f"($2 - {aggregate.window_us})"
    return f"(($2 - {aggregate.window_us}) / {aggregate.hop_us} * {aggregate.hop_us})"


def merged(layout: Layout, aggregate: Aggregate) -> str:
    """The SQL aggregate over the unpacked events and summaries; what :func:`finished` turns into the value."""
    f = layout.filters.index(aggregate.where)
    inside = f"v.t >= {_tail(aggregate)}"
    chosen = f"(v.m >> {f}) & 1 = 1"
    if aggregate.column is None:
        event = f"(v.m >> {f}) & 1"
        counted = event if not layout.summarised else f"case when r.across then {event} else r.n{f} end"
        return f"sum({counted}) filter (where {inside})"
    column = layout.column(aggregate.column)
    if not layout.summarised:
        return _over_events(aggregate, column, f"{chosen} and {inside} and v.c{column.position} is not null")
    summaries = {s.what: f"r.{s.name}" for s in layout.needed(aggregate)}
    return _over_rows(aggregate, column, chosen, inside, summaries)


def _over_events(aggregate: Aggregate, column: Kept, condition: str) -> str:
    """Over single events: order of (time, partition, offset) where it matters."""
    value, order = f"v.c{column.position}", "order by v.t, r.part, v.o"
    if aggregate.function in ("first", "last"):
        order = order if aggregate.function == "first" else "order by v.t desc, r.part desc, v.o desc"
        return f"(array_agg({value} {order}) filter (where {condition}))[1]"
    if aggregate.function == "count":
        return f"count(*) filter (where {condition})"
    if aggregate.function == "count_distinct":
        return f"count(distinct {_exact(column, value) if column.kind == 'wide' else value}) filter (where {condition})"
    if aggregate.function in ("min", "max"):
        return f"{aggregate.function}({_exact(column, value)}) filter (where {condition})"
    if not column.exact:
        return f"array_agg({value} {order}) filter (where {condition})"
    number = f"{_exact(column, value)}::numeric"
    total = f"sum({number}) filter (where {condition})"
    if aggregate.function == "sum":
        return total
    count = f"count(*) filter (where {condition})"
    if aggregate.function == "avg":
        return f"array[{count}, {total}]"
    return f"array[{count}, {total}, sum({number} * {number}) filter (where {condition})]"


def _over_rows(aggregate: Aggregate, column: Kept, chosen: str, inside: str, summaries: dict[str, str]) -> str:
    """Over events of unpacked rows and summaries of whole ones."""
    value = _exact(column, f"v.c{column.position}")

    def total(what: str, event: str) -> str:
        picked = f"case when r.across then case when {chosen} then {event} end else {summaries[what]} end"
        return f"sum({picked}) filter (where {inside})"

    if aggregate.function in ("min", "max"):
        kept = next(iter(summaries.values()))
        picked = f"case when r.across then case when {chosen} then {value} end else {kept} end"
        return f"{aggregate.function}({picked}) filter (where {inside})"
    if aggregate.function == "sum":
        return total("s", value)
    count = total("k", f"case when v.c{column.position} is not null then 1 end")
    if aggregate.function == "count":
        return count
    if aggregate.function == "avg":
        return f"array[{count}, {total('s', value)}]::numeric[]"
    squares = total("q", f"{value}::numeric * {value}")
    return f"array[{count}, {total('s', value)}, {squares}]::numeric[]"


def _exact(column: Kept, value: str) -> str:
    return f"{value}::numeric" if column.kind == "wide" else value


def finished(layout: Layout, aggregate: Aggregate, merged: str) -> str:
    """The value itself: 0 for a count or sum of nothing, null for the others."""
    if aggregate.function in ("count", "count_distinct"):
        return f"coalesce({merged}, 0)::bigint"
    assert aggregate.column is not None
    column = layout.column(aggregate.column)
    if aggregate.function in ("sum", "avg", "var", "std"):
        return _exact_number(aggregate, column, merged) if column.exact else _float_number(aggregate, merged)
    return {
        "scaled": f"{merged} * 1e-{column.scale}::numeric",
        "wide": f"{merged}::numeric",
        "time": f"timestamptz 'epoch' + {merged} * interval '1 microsecond'",
        "date": f"date '1970-01-01' + {merged}",
        "boolean": f"{merged}::boolean",
    }.get(column.kind, merged)


def _exact_number(aggregate: Aggregate, column: Kept, merged: str) -> str:
    scale = column.scale if column.kind == "scaled" else 0
    unit = f" * 1e-{scale}::numeric" if scale else ""
    if aggregate.function == "sum":
        if column.kind != "integer":
            return f"coalesce({merged}, 0)::numeric{unit}"
        return f"case when abs(coalesce({merged}, 0)::numeric) < 9223372036854775808 then coalesce({merged}, 0)::bigint end"
    n, s, q = (f"({merged})[{i}]" for i in (1, 2, 3))
    if aggregate.function == "avg":
        return f"(round({s}, {_DIGITS}) / nullif({n}, 0){unit})::double precision"
    squared = unit * 2
    variance = f"(round({n} * {q} - {s} * {s}, {_DIGITS}) / nullif({n} * ({n} - 1), 0){squared})::double precision"
    return variance if aggregate.function == "var" else f"sqrt({variance})"


def _float_number(aggregate: Aggregate, merged: str) -> str:
    """Doubles from left to right in the order of the array, as the oracle does."""
    total = f"(select sum(u.x order by u.i) from unnest({merged}) with ordinality u (x, i))"
    if aggregate.function == "sum":
        return f"coalesce({total}, 0)"
    mean = f"{total} / cardinality({merged})"
    if aggregate.function == "avg":
        return mean
    variance = (
        f"(select case when count(*) > 1 then sum((u.x - w.mean) * (u.x - w.mean) order by u.i) / (count(*) - 1) end"
        f" from unnest({merged}) with ordinality u (x, i), (select {mean} as mean) w)"
    )
    return variance if aggregate.function == "var" else f"sqrt({variance})"


def reader(url: str) -> psycopg.Connection:
    """A connection for reads: plans are made once (planning costs more than a read of one entity), JIT never helps."""
    from ct_assets.adapters.postgres.connect import connect

    conn = connect(url, autocommit=True)
    conn.execute("set plan_cache_mode = force_generic_plan")
    conn.execute("set jit = off")
    return conn


@dataclass(frozen=True)
class OnlineValues:
    """What one read gave: a dict of the aggregates per entity, in the order asked.

    ``watermark_us`` (None: nothing known yet), ``staleness_us`` (None: never fed), ``is_stale`` (None: no objective),
    ``version``: {partition: (next offset, replays)} of the state that was read.
    """

    values: list[dict[str, Any]]
    watermark_us: int | None
    staleness_us: int | None
    is_stale: bool | None
    version: dict[int, tuple[int, int]]


def read(
    conn: psycopg.Connection, table: OnlineTable, entities: Sequence[Any], at_us: int, *, version: bool = True
) -> OnlineValues:
    """The values of ``entities`` at ``at_us`` (microseconds), in one round trip; an unknown entity reads as empty windows.

    An entity may come twice. For reads at the present; older moments reach back as far as rows are kept. Without
    ``version`` the answer has none and is faster by 20 microseconds.
    """
    layout = table.layout
    names = [a.name for a in layout.definition.aggregates]
    listed = ", ".join(f'"{name}"' for name in names)
    versioned = "case when _place = 1 then _version end" if version else "null"
    query = (  # the version is the same in every row: it travels once
        f"select {listed}, _watermark_us, _staleness_us, _is_stale, {versioned}"
        f" from {table.function}($1, $2) order by _place"
    )
    rows = _fetched(conn, query, layout, entities, at_us)
    if not rows:
        return OnlineValues([], None, None, None, {})
    watermark, staleness, is_stale, offsets = rows[0][len(names) :]
    return OnlineValues(
        values=[dict(zip(names, row, strict=False)) for row in rows],
        watermark_us=watermark,
        staleness_us=staleness,
        is_stale=is_stale,
        version={int(p): (v[0], v[1]) for p, v in (offsets or {}).items()},
    )


def _fetched(
    conn: psycopg.Connection, query: str, layout: Layout, entities: Sequence[Any], at_us: int
) -> list[tuple[Any, ...]]:
    """Rows by a prepared statement; parameters are numbered because the moment is used often."""
    from psycopg import RawCursor

    with RawCursor(conn) as cursor:
        values = query.replace("$1", f"$1::{entity_type(layout)}[]", 1).replace("$2", "$2::bigint", 1)
        return cursor.execute(values.encode(), (list(entities), at_us), prepare=True, binary=True).fetchall()
