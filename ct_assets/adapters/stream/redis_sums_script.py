"""Lua that adds events to sums, made for one definition: of a row that is closed, and of a window at its edges.

What goes here: what one event does to the doubles of a summary. What does not: the scripts (``redis_scripts``,
``redis_read_script``), the form of the sums (``packed_form``). Pure.
"""

from __future__ import annotations

from ct_assets.adapters.stream.layout import Kept, Summary
from ct_assets.adapters.stream.packed_form import Packing, limbs_of

MOST_LOCALS = 100  # Lua has at most 200 local variables in a function

# the square of x + y * 2^24 + z * 2^48, where the whole is below 2^50, added to six limbs from a[i]; each product is below
# 2^50, and is split so that no limb grows by more than 2^26
SQUARE = """
local band = bit.band
local function square(a, i, x, y, z)
  local products = {x * x, 2 * x * y, y * y + 2 * x * z, 2 * y * z, z * z}
  for k = 1, 5 do
    local high = math.floor(products[k] / 16777216)
    a[i + k - 1] = a[i + k - 1] + products[k] - high * 16777216
    a[i + k] = a[i + k] + high
  end
end
"""


def event_taken(packing: Packing, text: str) -> str:
    """Lua that takes the event at ``r`` of the variable ``text``: into t, m, z and values; ``r`` moves behind it."""
    limbs = sum(map(limbs_of, packing.valued))
    if limbs > MOST_LOCALS:
        return (
            f"local v = {{struct.unpack('{packing.event_format}', {text}, r)}}\n"
            f"local t, m, z = v[1], v[2], v[3]\nr = v[{limbs + 4}]"
        )
    names = "".join(f", v{i}" for i in range(1, limbs + 1))
    return f"local t, m, z{names}, after = struct.unpack('{packing.event_format}', {text}, r)\nr = after"


def kept_by(packing: Packing, number: int) -> str:
    """The condition that filter ``number`` keeps the event; every event in a row is kept by one."""
    return "true" if len(packing.layout.filters) == 1 else f"band(m, {1 << number}) ~= 0"


def there(packing: Packing, column: Kept | None) -> str:
    """The condition that the event has a value of a column."""
    return "true" if column is None else f"band(z, {1 << packing.layout.kept.index(column)}) == 0"


def event_added(packing: Packing, summary: Summary, at: int) -> str:
    """Lua that adds the event to the doubles of a summary from ``a[at]`` on; it is kept, and its value is there."""
    if summary.what in ("n", "k") or summary.column is None:
        return f"a[{at}] = a[{at}] + 1"
    values = _values(packing, summary.column)
    if summary.what == "s":
        return " ".join(f"a[{at + i}] = a[{at + i}] + {value}" for i, value in enumerate(values))
    if summary.what == "q":
        return f"square(a, {at}, {', '.join(values)})"
    return larger_kept(summary.what, [f"a[{at + i}]" for i in range(len(values) + 1)], values)


def larger_kept(what: str, held: list[str], values: list[str]) -> str:
    """Lua that keeps the extreme (hi, lo): ``held`` is a flag and limbs, of which the last decides first."""
    sign = ">" if what == "hi" else "<"
    better = f"{values[0]} {sign} {held[1]}"
    for value, limb in zip(values[1:], held[2:], strict=True):
        better = f"{value} {sign} {limb} or ({value} == {limb} and ({better}))"
    return f"if {held[0]} == 0 or {better} then {', '.join(held)} = 1, {', '.join(values)} end"


def sums_of(packing: Packing) -> str:
    """A function of events back to back: the sums of a closed row, as text; empty where rows have none."""
    if not packing.summarised:
        return "local function sums_of(text) return '' end\n"
    added = "\n".join(
        f"if {kept_by(packing, s.filter)} and {there(packing, s.column)} then {event_added(packing, s, first + 1)} end"
        for s, (first, _) in packing.slots.items()
    )
    return f"""{SQUARE}
local function sums_of(text)
  local a, r = {{{", ".join(["0"] * packing.sums)}}}, 1
  while r <= #text do
    {event_taken(packing, "text")}
    {added}
  end
  return struct.pack('<{"d" * packing.sums}', unpack(a, 1, {packing.sums}))
end
"""


def _values(packing: Packing, column: Kept) -> list[str]:
    first = 1 + sum(limbs_of(c) for c in packing.valued[: packing.valued.index(column)])
    as_table = sum(map(limbs_of, packing.valued)) > MOST_LOCALS
    return [f"v[{i + 3}]" if as_table else f"v{i}" for i in range(first, first + limbs_of(column))]
