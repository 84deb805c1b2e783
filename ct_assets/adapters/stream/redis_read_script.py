"""The Lua script that finishes, or cuts out, the windows of entities in Redis at a moment, made for one definition.

What goes here: Lua of reads. What does not: writes and the keys (``redis_scripts``), finishing in Python (``packed_read``).
Pure.
"""

from __future__ import annotations

from ct_assets.adapters.stream.packed_form import Packing, answer_width
from ct_assets.adapters.stream.redis_scripts import PROGRESS, filled
from ct_assets.adapters.stream.redis_sums_script import SQUARE, event_added, event_taken, kept_by, there
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
local reach, versioned, read = at - LONGEST, ARGV[2] == '1', struct.unpack
TAILS
local function events_of(name, id)
  local events = redis.call('GET', name .. ':' .. id)
  if not events then error('the events of row ' .. id .. ' of ' .. name .. ' are gone: was a key evicted?') end
  return events
end
local out = {}
for e = 1, #names do
  local s = found[e]
  local stop = s and #s - 4 or 0
  BEGIN
  while stop > 0 do
    local size, last, first, part, _, offset, replays, id = read('ROW', s, stop - FOOT + 1)
    if versioned then
      local version = offsets[part] or {-2, 0}
      if offset > version[1] or replays > version[2] then ahead = 1 end
    end
    if last >= reach and first < at then
      local text, r, final = s, stop - size + 1, stop - FOOT
      ROWS
    end
    stop = stop - size
  end
  END
end
return {base, ahead, out}
"""

_CUT = """
if id > 0 then
  text = events_of(names[e], id)
  r, final = 1, #text
end
local cut = {}
while r <= final do
  local length, t = read('<I4d', text, r)
  if t >= reach and t < at then cut[#cut + 1] = string.sub(text, r, r + length - 1) end
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


# the extreme at b[j..], a flag and `width` limbs, into a[i..]
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
    """Lua that merges sums of whole closed rows and events of all others: (begin, row, end, tails)."""
    aggregates = packing.layout.definition.aggregates
    tails = {text: f"tail{i}" for i, text in enumerate(dict.fromkeys(map(_tail, aggregates)))}
    before = "\n".join(f"local {name} = {text}" for text, name in tails.items()) + "\n" + _EXTREME + SQUARE
    across = " or ".join(["last >= at", *(f"(first < {name} and last >= {name})" for name in tails.values())])
    width = sum(answer_width(packing, a) for a in aggregates)
    whole, at = [], 1
    single: dict[str, list[str]] = {}  # what an event adds, by the condition of filter and window
    for aggregate in aggregates:
        tail = tails[_tail(aggregate)]
        whole.append(f"if last >= {tail} then {_from_row(packing, aggregate, at)} end")
        condition = f"{kept_by(packing, packing.layout.filters.index(aggregate.where))} and t >= {tail}"
        single.setdefault(condition, []).append(_from_event(packing, aggregate, at))
        at += answer_width(packing, aggregate)
    row = f"""
      if id > 0 and not ({across}) then
        local b = {{read('<{"d" * packing.sums}', s, r)}}
        {" ".join(whole)}
      else
        if id > 0 then
          text = events_of(names[e], id)
          r, final = 1, #text
        end
        while r <= final do
          {event_taken(packing, "text")}
          if t < at and t >= reach then
            {" ".join(f"if {condition} then {' '.join(added)} end" for condition, added in single.items())}
          end
        end
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


def _from_event(packing: Packing, aggregate: Aggregate, at: int) -> str:
    """Add the value of an event that counts to the slots from ``at``, where it has one."""
    done = []
    for summary in packing.layout.needed(aggregate):
        done.append(event_added(packing, summary, at))
        at += packing.slots[summary][1]
    column = None if aggregate.column is None else packing.layout.column(aggregate.column)
    text = " ".join(done)
    return text if column is None else f"if {there(packing, column)} then {text} end"
