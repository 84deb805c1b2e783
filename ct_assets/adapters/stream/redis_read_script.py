"""The Lua script that finishes, or cuts out, the windows of entities in Redis at a moment, made for one definition.

What goes here: Lua of reads. What does not: writes and the keys (``redis_scripts``), finishing in Python (``packed_read``).
Pure.
"""

from __future__ import annotations

from ct_assets.adapters.stream.layout import Summary
from ct_assets.adapters.stream.packed_form import Packing, answer_width, limbs_of
from ct_assets.adapters.stream.redis_scripts import PROGRESS, filled
from ct_assets.streaming.definition import Aggregate

_READ = """
-- KEYS: BASE. ARGV: the moment (microseconds), 1 when the version matters, then entities.
-- Returns {progress of BASE, 1 when a row is ahead of its partition's progress, values}; false when nothing is loaded.
local base, at = redis.call('HGETALL', KEYS[1]), tonumber(ARGV[1])
local generation, offsets, ahead = nil, {}, 0
for i = 1, #base, 2 do
  if base[i] == 'g' then generation = base[i + 1]
  elseif ARGV[2] == '1' then
    local offset, replays = progress(base[i + 1])
    offsets[tonumber(base[i])] = {offset, replays}
  end
end
if not generation then return false end
local prefix, names = KEYS[1] .. ':' .. generation .. ':', {}
for i = 3, #ARGV do names[i - 2] = prefix .. ARGV[i] end
local found = redis.call('MGET', unpack(names))
local reach = at - LONGEST
TAILS
local function events_of(name, s, q, size, id)
  if id == 0 then return string.sub(s, q + HEAD + SUMS * 8, q + size - 1) end
  local events = redis.call('GET', name .. ':' .. id)
  if not events then error('the events of row ' .. id .. ' of ' .. name .. ' are gone: was a key evicted?') end
  return events
end
local out = {}
for e = 1, #names do
  local s, q = found[e], 1
  BEGIN
  while s and q <= #s do
    local size, last, first, part, tile, offset, replays, id, n, at_sums = struct.unpack('ROW', s, q)
    if ARGV[2] == '1' then
      local version = offsets[part] or {-2, 0}
      if offset > version[1] or replays > version[2] then ahead = 1 end
    end
    if n > 0 and last >= reach and first < at then
      ROWS
    end
    q = q + size
  end
  END
end
return {base, ahead, out}
"""

_CUT = """
local events, r, cut = events_of(names[e], s, q, size, id), 1, {}
while r <= #events do
  local length, t = struct.unpack('<I4d', events, r)
  if t >= reach and t < at then cut[#cut + 1] = string.sub(events, r, r + length - 1) end
  r = r + length
end
local joined = table.concat(cut)
rows[#rows + 1] = struct.pack('<i4I4', part, #joined) .. joined
"""


def read_script(packing: Packing) -> str:
    """Finishes (or cuts out) the windows of entities at a moment."""
    begin, rows, end = "local rows = {}", _CUT, "out[e] = table.concat(rows)"
    tails = ""
    if packing.summarised:
        begin, rows, end, tails = _summing(packing)
    body = _READ.replace("BEGIN", begin).replace("ROWS", rows).replace("END", end).replace("TAILS", tails)
    return filled(packing, PROGRESS + body)


# the same in tables: the extreme at b[j..], a flag and `width` limbs, into a[i..]
_EXTREME = """
local function extreme(a, i, b, j, width, larger)
  if b[j] == 0 then return end
  local better = a[i] == 0
  if not better then
    for k = width, 1, -1 do
      if a[i + k] ~= b[j + k] then
        better = (b[j + k] > a[i + k]) == larger
        break
      end
    end
  end
  if better then for k = 0, width do a[i + k] = b[j + k] end end
end
"""


def _summing(packing: Packing) -> tuple[str, str, str, str]:
    """Lua that merges sums of whole rows and events of rows across an edge: (begin, row, end, tails)."""
    aggregates = packing.layout.definition.aggregates
    tails = {text: f"tail{i}" for i, text in enumerate(dict.fromkeys(map(_tail, aggregates)))}
    before = "\n".join(f"local {name} = {text}" for text, name in tails.items())
    before += "\n" + _EXTREME + _SQUARE
    across = " or ".join(["last >= at", *(f"(first < {name} and last >= {name})" for name in tails.values())])
    width = sum(answer_width(packing, a) for a in aggregates)
    whole, single, at = [], [], 1
    for aggregate in aggregates:
        tail = tails[_tail(aggregate)]
        whole.append(f"if last >= {tail} then {_from_row(packing, aggregate, at)} end")
        single.append(_from_event(packing, aggregate, at, tail))
        at += answer_width(packing, aggregate)
    doubles = "d" * packing.sums
    names = ", ".join(f"v[{i}]" for i in range(1, 1 + sum(map(limbs_of, packing.valued))))
    unpacked = f"t, m, z{', ' + names if names else ''}, r = struct.unpack('{packing.event_format}', events, r)"
    row = f"""
      if {across} then
        local events, r, v = events_of(names[e], s, q, size, id), 1, {{}}
        while r <= #events do
          local t, m, z
          {unpacked}
          if t < at and t >= reach then
            {" ".join(single)}
          end
        end
      else
        local b = {{struct.unpack('<{doubles}', s, at_sums)}}
        {" ".join(whole)}
      end"""
    begin = f"local a = {{{', '.join(['0'] * width)}}}"
    return begin, row, f"out[e] = struct.pack('<{'d' * width}', unpack(a, 1, {width}))", before


def _tail(aggregate: Aggregate) -> str:
    if aggregate.hop_us is None:
        return f"at - {aggregate.window_us}"
    return f"math.floor((at - {aggregate.window_us}) / {aggregate.hop_us}) * {aggregate.hop_us}"


def _from_row(packing: Packing, aggregate: Aggregate, at: int) -> str:
    """Add a whole row's summaries ``b`` to the slots from ``at``."""
    done = []
    for summary in packing.layout.needed(aggregate):
        place, width = packing.slots[summary]
        if summary.what in ("lo", "hi"):
            larger = "true" if summary.what == "hi" else "false"
            done.append(f"extreme(a, {at}, b, {place + 1}, {width - 1}, {larger})")
        else:
            done += [f"a[{at + i}] = a[{at + i}] + b[{place + 1 + i}]" for i in range(width)]
        at += width
    return " ".join(done)


def _from_event(packing: Packing, aggregate: Aggregate, at: int, tail: str) -> str:
    """Add one event's value to the slots from ``at`` where it counts."""
    layout = packing.layout
    bit = 1 << layout.filters.index(aggregate.where)
    chosen = [f"bit.band(m, {bit}) ~= 0", f"t >= {tail}"]
    if aggregate.column is None:
        return f"if {' and '.join(chosen)} then a[{at}] = a[{at}] + 1 end"
    column = layout.column(aggregate.column)
    chosen.append(f"bit.band(z, {1 << layout.kept.index(column)}) == 0")
    done = []
    for summary in layout.needed(aggregate):
        done.append(_event_summary(packing, summary, at))
        at += packing.slots[summary][1]
    return f"if {' and '.join(chosen)} then {' '.join(done)} end"


def _event_summary(packing: Packing, summary: Summary, at: int) -> str:
    if summary.what in ("n", "k"):
        return f"a[{at}] = a[{at}] + 1"
    assert summary.column is not None
    first = 1 + sum(limbs_of(c) for c in packing.valued[: packing.valued.index(summary.column)])
    width = limbs_of(summary.column)
    if summary.what == "s":
        return " ".join(f"a[{at + i}] = a[{at + i}] + v[{first + i}]" for i in range(width))
    if summary.what == "q":
        return f"square(a, {at}, v[{first}], v[{first + 1}], v[{first + 2}])"
    larger = "true" if summary.what == "hi" else "false"
    values = ", ".join(f"v[{first + i}]" for i in range(width))
    return f"extreme(a, {at}, {{1, {values}}}, 1, {width}, {larger})"


# the square of x + y * 2^24 + z * 2^48, where the whole is below 2^50, added to six limbs from a[i]; each product is below
# 2^50, and is split so that no limb grows by more than 2^26
_SQUARE = """
local function square(a, i, x, y, z)
  local products = {x * x, 2 * x * y, y * y + 2 * x * z, 2 * y * z, z * z}
  for k = 1, 5 do
    local high = math.floor(products[k] / 16777216)
    a[i + k - 1] = a[i + k - 1] + products[k] - high * 16777216
    a[i + k] = a[i + k] + high
  end
end
"""
