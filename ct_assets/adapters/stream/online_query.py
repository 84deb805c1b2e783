"""SQL that finishes a definition's values at read time: the body of its function, and the queries of ``online_read``.

What goes here: SQL text of reads. What does not: the table and its writes (``online``), running a read (``online_read``).

For each entity the query takes the rows whose events may lie in the longest window. A row that lies across an edge of a
window is unpacked into its events; any other row counts as one pseudo-event at its last time, carrying its summaries.
Then each aggregate is a SQL aggregate over those with the window as filter: exact at any microsecond, no timer writes.
"""

from __future__ import annotations

from ct_assets.adapters.stream.layout import Kept, Layout
from ct_assets.adapters.stream.online_floats import float_number
from ct_assets.streaming.definition import Aggregate

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
_UPDATED = "(extract(epoch from updated_at) * 1000000)::bigint"
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


def function(layout: Layout, table: str, stream_id: int) -> str:
    """What follows ``create`` to make the function of one version, called as its table."""
    return (
        f"function {table} (_entities {entity_type(layout)}[], _at_us bigint)"
        f" returns table ({returned(layout, EXTRAS)}) language sql stable parallel safe"
        f" as $read${function_body(layout, table, stream_id)}$read$"
    )


def function_body(layout: Layout, table: str, stream_id: int) -> str:
    """The query of the function of one version; $1 the entities, $2 the moment in microseconds. ``table`` is quoted."""
    definition = layout.definition
    stale = "null::boolean"
    if definition.freshness_us is not None:
        stale = f"coalesce($2 - p.fresh_as_of > {definition.freshness_us}, true)"
    values = _values(layout)
    if definition.freshness_us is not None and definition.on_stale == "null":
        values = [f"case when not {stale} then {value} end" for value in values]
    listed = ",\n       ".join(values)
    acceptance = definition.acceptance
    return f"""
select e.entity,
       {listed},
       p.watermark, case when p.fresh_as_of is not null then greatest($2 - p.fresh_as_of, 0) end, {stale}, p.version, e.place
from unnest($1) with ordinality as e (entity, place)
left join lateral {windows(layout, table, "e.entity")} a on true
cross join stream.progress({stream_id}, $2, {acceptance.out_of_orderness_us}, {acceptance.idle_timeout_us}) p"""


def many_query(layout: Layout, table: str, stream_id: int) -> bytes:
    """The same for ``online_read.read``, which applies the rule of ``stream.progress`` itself: the values, then the progress of
    the partitions (in the first row only). $1 the entities, $2 the moment."""
    return _typed(
        f"select {', '.join(_values(layout))}, case when e.place = 1 then {_partitions(stream_id)} end"
        f" from unnest($1::{entity_type(layout)}[]) with ordinality as e (entity, place)"
        f" left join lateral {windows(layout, table, 'e.entity')} a on true order by e.place"
    )


def one_query(layout: Layout, table: str, stream_id: int) -> bytes:
    """The same for one entity, $1: without a join the executor starts in half the time, which is most of such a read."""
    return _typed(
        f"select {', '.join(_values(layout))}, {_partitions(stream_id)}"
        f" from {windows(layout, table, f'$1::{entity_type(layout)}')} a"
    )


def _typed(query: str) -> bytes:
    """psycopg sends a number as the smallest type that holds it; the moment is always a bigint."""
    return query.replace("$2", "$2::bigint").encode()


def _values(layout: Layout) -> list[str]:
    return [finished(layout, a, f"a.a{i}") for i, a in enumerate(layout.definition.aggregates)]


def _partitions(stream_id: int) -> str:
    """What ``stream.progress`` reads, as an array of one row a partition: see ``online_read``."""
    seen = ", ".join(("partition", "next_offset", "replays", "top", "last_append", "caught_up::integer", _UPDATED))
    return f"(select array_agg(array[{seen}]) from stream.partition where stream_id = {stream_id})"


def windows(layout: Layout, table: str, entity: str) -> str:
    """A subquery of one row: the aggregates ``a0``, ``a1``, ... of one entity (an expression) over its windows."""
    merges = ",\n          ".join(f"{merged(layout, a)} as a{i}" for i, a in enumerate(layout.definition.aggregates))
    return f"""(
    select {merges}
    from {_source(layout, table, entity)} v
    where v.t < $2 and v.t >= $2 - {layout.definition.max_window_us}
)"""


def _source(layout: Layout, table: str, entity: str) -> str:
    """The rows of one entity, each unpacked where it must be.

    unnest stands in the select list: there it hands on its rows, in FROM it would write them to a tuplestore first.
    """
    longest, tile = layout.definition.max_window_us, layout.tile_us
    names = ["t", *(["o"] if layout.ordered else []), "m", *(f"c{k.position}" for k in layout.kept)]
    rows = f"""{table} r
            where r.entity = {entity} and r.tile between ($2 - {longest}) / {tile} and ($2 - 1) / {tile}
              and r.last_t >= $2 - {longest} and r.first_t < $2"""
    if not layout.summarised:
        unpacked = ", ".join(f"unnest(r.{name}) as {name}" for name in names)
        return f"(select r.part, {unpacked} from {rows})"
    edges = dict.fromkeys(_tail(a) for a in layout.definition.aggregates)
    across = " or ".join(["r.last_t >= $2", *(f"(r.first_t < {edge} and r.last_t >= {edge})" for edge in edges)])
    unpacked = ["unnest(case when r.across then r.t else array[r.last_t] end) as t"]
    unpacked += [f"unnest(case when r.across then r.{name} end) as {name}" for name in names[1:]]
    kept = ["r.across", *(f"r.{s.name}" for s in layout.summaries), *unpacked]
    return f"(select {', '.join(kept)} from (select r.*, ({across}) as across from {rows} offset 0) r)"


def _tail(aggregate: Aggregate) -> str:
    """The first moment of the window that ends before $2."""
    if aggregate.hop_us is None:
        return f"($2 - {aggregate.window_us})"
    return f"(($2 - {aggregate.window_us}) / {aggregate.hop_us} * {aggregate.hop_us})"


def merged(layout: Layout, aggregate: Aggregate) -> str:
    """The SQL aggregate over the unpacked events and summaries; what :func:`finished` turns into the value."""
    f = layout.filters.index(aggregate.where)
    chosen = f"(v.m >> {f}) & 1 = 1"
    inside = "" if _is_longest(layout, aggregate) else f"v.t >= {_tail(aggregate)}"
    if aggregate.column is None:
        event = f"(v.m >> {f}) & 1"
        counted = event if not layout.summarised else f"case when v.across then {event} else v.n{f} end"
        return f"sum({counted}){_filter(inside)}"
    column = layout.column(aggregate.column)
    if not layout.summarised:
        return _over_events(aggregate, column, [chosen, inside, f"v.c{column.position} is not null"])
    summaries = {s.what: f"v.{s.name}" for s in layout.needed(aggregate)}
    return _over_rows(aggregate, column, chosen, inside, summaries)


def _is_longest(layout: Layout, aggregate: Aggregate) -> bool:
    """Whether all that :func:`windows` lets through lies in the aggregate's window: each condition less is time."""
    return aggregate.hop_us is None and aggregate.window_us == layout.definition.max_window_us


def _filter(*conditions: str) -> str:
    given = " and ".join(c for c in conditions if c)
    return f" filter (where {given})" if given else ""


def _over_events(aggregate: Aggregate, column: Kept, conditions: list[str]) -> str:
    """Over single events: order of (time, partition, offset) where it matters."""
    only = _filter(*conditions)
    value, order = f"v.c{column.position}", "order by v.t, v.part, v.o"
    if aggregate.function in ("first", "last"):
        order = order if aggregate.function == "first" else "order by v.t desc, v.part desc, v.o desc"
        return f"(array_agg({value} {order}){only})[1]"
    if aggregate.function == "count":
        return f"count(*){only}"
    if aggregate.function == "count_distinct":
        return f"count(distinct {_exact(column, value) if column.kind == 'wide' else value}){only}"
    if aggregate.function in ("min", "max"):
        return f"{aggregate.function}({_exact(column, value)}){only}"
    if not column.exact:
        return f"array_agg({value} {order}){only}"
    number = f"{_exact(column, value)}::numeric"
    total = f"sum({number}){only}"
    if aggregate.function == "sum":
        return total
    count = f"count(*){only}"
    if aggregate.function == "avg":
        return f"array[{count}, {total}]"
    return f"array[{count}, {total}, sum({number} * {number}){only}]"


def _over_rows(aggregate: Aggregate, column: Kept, chosen: str, inside: str, summaries: dict[str, str]) -> str:
    """Over events of unpacked rows and summaries of whole ones."""
    value = _exact(column, f"v.c{column.position}")

    def total(what: str, event: str) -> str:
        picked = f"case when v.across then case when {chosen} then {event} end else {summaries[what]} end"
        return f"sum({picked}){_filter(inside)}"

    if aggregate.function in ("min", "max"):
        kept = next(iter(summaries.values()))
        picked = f"case when v.across then case when {chosen} then {value} end else {kept} end"
        return f"{aggregate.function}({picked}){_filter(inside)}"
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
        if column.exact:
            return _exact_number(aggregate, column, merged)
        return float_number(aggregate.function, merged)
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
        total = f"coalesce({merged}, 0)"
        if column.kind == "wide":  # more than 38 digits are null; the sum of bigints never has so many
            return f"case when abs({total}::numeric) < 1e{38 - column.scale}::numeric then {total}::numeric end"
        if column.kind != "integer":
            return f"{total}::numeric{unit}"
        return f"case when {total}::numeric between {-(2**63)} and {2**63 - 1} then {total}::bigint end"
    n, s, q = (f"({merged})[{i}]" for i in (1, 2, 3))
    digits = _DIGITS + (2 * column.scale if column.kind == "wide" else 0)  # the others are integers here
    if aggregate.function == "avg":
        return f"(round({s}, {digits}) / nullif({n}, 0){unit})::double precision"
    squared = unit * 2
    variance = f"(round({n} * {q} - {s} * {s}, {digits}) / nullif({n} * ({n} - 1), 0){squared})::double precision"
    return variance if aggregate.function == "var" else f"sqrt({variance})"
