"""The Lua scripts that write and read packed rows in Redis, made for one definition.

What goes here: Lua. What does not: sending (``redis_online``), bytes (``packed_form``), finishing (``packed_read``). Pure.

Keys: ``BASE`` is a hash: ``g`` names the generation that answers, a partition's number its progress as text
``offset:replays:top:last append:caught up:updated`` (empty: none). ``BASE:<g>:<entity>`` holds an entity's rows, and with
``:<id>`` behind it the events of a closed row. Names are made inside the scripts, so a Redis Cluster is not supported.
"""

from __future__ import annotations

from ct_assets.adapters.stream.layout import ROW_EVENTS, Summary
from ct_assets.adapters.stream.packed_form import ITEM_FORMAT, ITEM_HEAD, ROW_FORMAT, ROW_HEAD, Packing, limbs_of
from ct_assets.streaming.definition import Aggregate

KEEP_ROWS = 8  # an entity with more rows loses those that no window can reach

_PROGRESS = """
local function progress(text)
  local offset, replays = string.match(text or '-2:0', '^(-?%d+):(%d+)')
  return tonumber(offset), tonumber(replays)
end
"""

_WRITE = """
-- KEYS: BASE. ARGV: generation, live | load, offset | replays, ms to live, rows, then for each partition: number, from.
-- Returns {'ok'}, {'generation'} or {'gap'}: nothing was written; {'overlap', entity, partition, version, ...}: these
-- rows hold a part of the delta already, all others are written.
local base, generation, by_offset = KEYS[1], ARGV[1], ARGV[3] == 'offset'
if ARGV[2] == 'live' then
  if redis.call('HGET', base, 'g') ~= generation then return {'generation'} end
  for i = 6, #ARGV, 2 do
    local offset, replays = progress(redis.call('HGET', base, ARGV[i]) or nil)
    if (by_offset and offset or replays) ~= tonumber(ARGV[i + 1]) then return {'gap'} end
  end
end
local prefix, px, blob, p, found = base .. ':' .. generation .. ':', ARGV[4], ARGV[5], 1, {'ok'}
local key, rows, decided, dirty, last_id

local function opened(name)
  key, rows, decided, dirty, last_id = prefix .. name, {}, {}, false, 0
  local s = redis.call('GET', key)
  local q = 1
  while s and q <= #s do
    local size, last, first, part, tile, offset, replays, id, n = struct.unpack('ROW', s, q)
    rows[#rows + 1] = {s = string.sub(s, q, q + size - 1), last = last, first = first, part = part, tile = tile,
                       offset = offset, replays = replays, id = id, n = n}
    if id > last_id then last_id = id end
    q = q + size
  end
end

local function closed()
  if not dirty then return end
  local whole = {}
  for i = 1, #rows do whole[i] = rows[i].s end
  redis.call('SET', key, table.concat(whole), 'PX', px)
end

local function drop(part, below)
  local left = {}
  for i = 1, #rows do
    local r = rows[i]
    if r.part == part and r.last < below then
      if r.id > 0 then redis.call('UNLINK', key .. ':' .. r.id) end
    else left[#left + 1] = r end
  end
  rows = left
end

local function put(r, sums, events)
  local size = HEAD + SUMS * 8 + #events
  r.s = struct.pack('ROW', size, r.last, r.first, r.part, r.tile, r.offset, r.replays, r.id, r.n) .. sums .. events
end

local entity
while p <= #blob do
  local size, key_size, last, first, part, tile, from, to, below, n, q = struct.unpack('ITEM', blob, p)
  local name = string.sub(blob, q + SUMS * 8, q + SUMS * 8 + key_size - 1)
  if name ~= entity then
    if entity then closed() end
    entity = name
    opened(name)
  end
  local row
  for i = 1, #rows do
    local r = rows[i]
    if r.id == 0 and r.part == part and r.tile == tile then row = r end
  end
  local group = part .. ':' .. tile
  local apply = decided[group]
  if apply == nil then
    apply = true
    if row then
      local version = by_offset and row.offset or row.replays
      if version >= to then apply = false
      elseif version > from then
        apply = false
        found[1] = 'overlap'
        found[#found + 1] = name
        found[#found + 1] = part
        found[#found + 1] = version
      end
    end
    decided[group] = apply
  end
  if apply then
    local events = string.sub(blob, q + SUMS * 8 + key_size, p + size - 1)
    if not row then
      if #rows >= KEEP then drop(part, below) end
      row = {part = part, tile = tile, offset = -2, replays = 0, id = 0, n = 0, first = first, last = last, s = ''}
      rows[#rows + 1] = row
    end
    if by_offset then row.offset = to else row.replays = to end
    local sums
    if row.n == 0 then sums = string.sub(blob, q, q + SUMS * 8 - 1)
      row.first = first
    else
      events = string.sub(row.s, HEAD + SUMS * 8 + 1) .. events
      row.first = math.min(row.first, first)
      sums = MERGED
    end
    row.last, row.n = math.max(row.last, last), row.n + n
    if row.n >= FULL then
      last_id = last_id + 1
      redis.call('SET', key .. ':' .. last_id, events, 'PX', px)
      local full = {part = part, tile = tile, offset = row.offset, replays = row.replays, id = last_id, n = row.n,
                    first = row.first, last = row.last}
      put(full, sums, '')
      rows[#rows + 1] = full
      row.n = 0
      put(row, string.rep('\\0', SUMS * 8), '')  -- keeps the version, and so knows a delta that comes again
    else put(row, sums, events) end
    dirty = true
  end
  p = p + size
end
if entity then closed() end
return found
"""

# KEYS: BASE. ARGV: generation; then for each partition: number, its progress before ('' for whatever), its progress now.
ADVANCE = (
    _PROGRESS
    + """
if redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 3 do
  local offset, replays = progress(redis.call('HGET', KEYS[1], ARGV[i]) or nil)
  local wanted_offset, wanted_replays = progress(ARGV[i + 1])
  if offset ~= wanted_offset or replays ~= wanted_replays then return 0 end
end
for i = 2, #ARGV, 3 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
return 1
"""
)

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


def write_script(packing: Packing) -> str:
    """Adds packed rows to entities."""
    merged = _merged(packing)
    body = _WRITE.replace("MERGED", merged) if packing.sums else _WRITE.replace("MERGED", "''")
    names = "\n".join([_PROGRESS, _merging(packing), body])
    return _filled(packing, names)


def read_script(packing: Packing) -> str:
    """Finishes (or cuts out) the windows of entities at a moment."""
    begin, rows, end = "local rows = {}", _CUT, "out[e] = table.concat(rows)"
    tails = ""
    if packing.summarised:
        begin, rows, end, tails = _summing(packing)
    body = _READ.replace("BEGIN", begin).replace("ROWS", rows).replace("END", end).replace("TAILS", tails)
    return _filled(packing, _PROGRESS + body)


def _filled(packing: Packing, text: str) -> str:
    longest = packing.layout.definition.max_window_us
    known = {"LONGEST": longest, "SUMS": packing.sums, "HEAD": ROW_HEAD, "FULL": ROW_EVENTS, "KEEP": KEEP_ROWS}
    for name, value in known.items():
        text = text.replace(name, str(value))
    assert ITEM_HEAD.itemsize == 4 + 4 + 8 + 8 + 4 + 8 + 8 + 8 + 8 + 4
    return text.replace("'ROW'", f"'{ROW_FORMAT}'").replace("'ITEM'", f"'{ITEM_FORMAT}'")


def _merged(packing: Packing) -> str:
    doubles = "d" * packing.sums
    return (
        f"summed({{struct.unpack('<{doubles}', row.s, HEAD + 1)}}, {{struct.unpack('<{doubles}', blob, q)}})"
        if packing.sums
        else "''"
    )


def _merging(packing: Packing) -> str:
    """A function that merges the sums of two rows."""
    lines = [_EXTREME, "local function summed(a, b)"]
    for summary, (at, width) in packing.slots.items():
        if summary.what in ("lo", "hi"):
            lines.append(
                f"  extreme(a, {at + 1}, b, {at + 1}, {width - 1}, {'true' if summary.what == 'hi' else 'false'})"
            )
        else:
            lines += [f"  a[{i}] = a[{i}] + b[{i}]" for i in range(at + 1, at + width + 1)]
    lines += [f"  return struct.pack('<{'d' * packing.sums}', unpack(a, 1, {packing.sums}))", "end"]
    return "\n".join(lines)


# the extreme at b[j..], a flag and `width` limbs, into a[i..]; the last limb decides first
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
    width = sum(_width(packing, a) for a in aggregates)
    whole, single, at = [], [], 1
    for aggregate in aggregates:
        tail = tails[_tail(aggregate)]
        whole.append(f"if last >= {tail} then {_from_row(packing, aggregate, at)} end")
        single.append(_from_event(packing, aggregate, at, tail))
        at += _width(packing, aggregate)
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


def _width(packing: Packing, aggregate: Aggregate) -> int:
    from ct_assets.adapters.stream.packed_form import answer_width

    return answer_width(packing, aggregate)


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
