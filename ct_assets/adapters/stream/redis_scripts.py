"""The Lua scripts that write packed rows in Redis, made for one definition.

What goes here: Lua of writes. What does not: reads (``redis_read_script``), sending (``redis_online``), bytes
(``packed_form``). Pure.

Keys: ``BASE`` is a hash: ``g`` names the generation that answers, a partition's number its progress as text
``offset:replays:top:last append:caught up:updated`` (empty: none). ``BASE:<g>:<entity>`` holds an entity's rows, and with
``:<id>`` behind it the events of a closed row; ``BASE:<g>`` counts the messages of a load. Names are made inside the scripts, so a Redis Cluster is not supported.
"""

from __future__ import annotations

from ct_assets.adapters.stream.layout import ROW_EVENTS, Summary
from ct_assets.adapters.stream.packed_form import ITEM_FORMAT, ITEM_HEAD, ROW_FORMAT, ROW_HEAD, Packing

KEEP_ROWS = 8  # an entity with more rows loses those that no window can reach

PROGRESS = """
local function progress(text)
  local offset, replays = string.match(text or '-2:0', '^(-?%d+):(%d+)')
  return tonumber(offset), tonumber(replays)
end
"""

_WRITE = """
-- KEYS: BASE. ARGV: generation, live | load, offset | replays, ms to live, rows, then when live for each partition: number,
-- from; a load adds whatever it is sent, but each of its messages (the number follows) once: clients send again.
-- Returns {'ok'}, {'generation'} or {'gap'}: nothing was written; {'overlap', entity, partition, version, ...}: these
-- rows hold a part of the delta already, all others are written.
local base, generation, by_offset = KEYS[1], ARGV[1], ARGV[3] == 'offset'
local live = ARGV[2] == 'live'
if live then
  if redis.call('HGET', base, 'g') ~= generation then return {'generation'} end
  for i = 6, #ARGV, 2 do
    local offset, replays = progress(redis.call('HGET', base, ARGV[i]) or nil)
    if (by_offset and offset or replays) ~= tonumber(ARGV[i + 1]) then return {'gap'} end
  end
else
  local counted = base .. ':' .. generation
  if tonumber(ARGV[6]) <= tonumber(redis.call('GET', counted) or 0) then return {'ok'} end
  redis.call('SET', counted, ARGV[6])
end
local prefix, px, blob, p, found = base .. ':' .. generation .. ':', ARGV[4], ARGV[5], 1, {'ok'}
local read, pack, sub, call = struct.unpack, struct.pack, string.sub, redis.call
local NONE = string.rep('\\0', SUMS * 8)
-- the entity in hand: its key, its rows as one text, whether they changed
local entity, key, rows, dirty, renew
-- its open row in hand, of one partition and tile: what lies before and behind it, whether the delta is applied to it
local part, tile, before, behind, apply
local last, first, offset, replays, n, sums, events, last_id

local function put_row()
  if apply then
    local size = HEAD + SUMS * 8 + #events
    rows = before .. pack('ROW', size, last, first, part, tile, offset, replays, 0, n) .. sums .. events .. behind
    dirty = true
  end
  apply = nil
end

local function put_entity()
  if apply ~= nil then put_row() end
  if not dirty then return end
  -- a time to live costs as much as the write: it is renewed with each new tile, and reaches a tile further
  if renew then call('SET', key, rows, 'PX', px) else call('SET', key, rows, 'KEEPTTL') end
end

-- rows of a partition that end before a time go
local function drop(number, below)
  local left, q = {}, 1
  while q <= #rows do
    local size, row_last, _, row_part, _, _, _, id = read('ROW', rows, q)
    if row_part == number and row_last < below then
      if id > 0 then call('UNLINK', key .. ':' .. id) end
    else left[#left + 1] = sub(rows, q, q + size - 1) end
    q = q + size
  end
  rows = table.concat(left)
end

-- the open row of a partition and tile comes into hand; a delta from..to is applied to it, or not
local function take_row(number, time, from, to, below)
  part, tile, last_id, n = number, time, 0, nil
  local q, count = 1, 0
  while q <= #rows do
    local size, a, b, row_part, row_tile, c, d, id, m, r = read('ROW', rows, q)
    if id == 0 and row_part == part and row_tile == tile then
      last, first, offset, replays, n = a, b, c, d, m
      before, behind = sub(rows, 1, q - 1), sub(rows, q + size)
      sums, events = sub(rows, r, r + SUMS * 8 - 1), sub(rows, r + SUMS * 8, q + size - 1)
    end
    if id > last_id then last_id = id end
    count, q = count + 1, q + size
  end
  apply = true
  if not n then
    renew = true
    if count >= MANY then drop(part, below) end
    before, behind, last, first, offset, replays, n, sums, events = rows, '', nil, nil, -2, 0, 0, NONE, ''
  elseif live then
    local version = by_offset and offset or replays
    if version >= to then apply = false
    elseif version > from then
      apply = false
      found[1] = 'overlap'
      found[#found + 1] = entity
      found[#found + 1] = part
      found[#found + 1] = version
    end
  end
  if by_offset then offset = to else replays = to end
end

-- one call reads all entities of the message; unpack has room for some thousand values
local names, stored = {}, {}
while p <= #blob do
  local size, key_size = read('<I4I4', blob, p)
  local at_name = p + ITEM_HEAD + SUMS * 8
  local name = prefix .. sub(blob, at_name, at_name + key_size - 1)
  if name ~= names[#names] then names[#names + 1] = name end
  p = p + size
end
for i = 1, #names, 1000 do
  local some = call('MGET', unpack(names, i, math.min(i + 999, #names)))
  for k = 1, #some do stored[i + k - 1] = some[k] end
end
local number_of = 0

p = 1
while p <= #blob do
  local size, key_size, a, b, number, time, from, to, below, m, q = read('ITEM', blob, p)
  local at_name = q + SUMS * 8
  local name = sub(blob, at_name, at_name + key_size - 1)
  if name ~= entity then
    if entity then put_entity() end
    number_of = number_of + 1
    entity, key, dirty, renew = name, names[number_of], false, false
    rows = stored[number_of] or ''
  end
  if apply ~= nil and (number ~= part or time ~= tile) then put_row() end
  if apply == nil then take_row(number, time, from, to, below) end
  if apply then
    local more = sub(blob, at_name + math.ceil(key_size / 4) * 4, p + size - 1)
    if n == 0 then sums, events, first = sub(blob, q, at_name - 1), more, b
    else
      sums, events = summed(sums, 1, blob, q), events .. more
      if b < first then first = b end
    end
    if not last or a > last then last = a end
    n = n + m
    if n >= FULL then  -- the open row stays, empty, and with it the version: a delta that comes again is known
      last_id = last_id + 1
      call('SET', key .. ':' .. last_id, events, 'PX', px)
      before = before .. pack('ROW', HEAD + SUMS * 8, last, first, part, tile, offset, replays, last_id, n) .. sums
      n, sums, events = 0, NONE, ''
    end
  end
  p = p + size
end
if entity then put_entity() end
return found
"""

# KEYS: BASE. ARGV: generation; then for each partition: number, its progress before ('' for whatever), its progress now.
ADVANCE = (
    PROGRESS
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


def write_script(packing: Packing) -> str:
    """Adds packed rows to entities."""
    return filled(packing, "\n".join([PROGRESS, _merging(packing), _WRITE]))


def filled(packing: Packing, text: str) -> str:
    """A script with the numbers and formats of a definition in place of their names."""
    longest = packing.layout.definition.max_window_us
    known = {
        "ITEM_HEAD": ITEM_HEAD.itemsize,
        "LONGEST": longest,
        "SUMS": packing.sums,
        "HEAD": ROW_HEAD,
        "FULL": ROW_EVENTS,
        "MANY": KEEP_ROWS,
    }
    for name, value in known.items():
        text = text.replace(name, str(value))
    return text.replace("'ROW'", f"'{ROW_FORMAT}'").replace("'ITEM'", f"'{ITEM_FORMAT}'")


def _merging(packing: Packing) -> str:
    """A function that merges the sums of two rows: texts and where in them the sums begin; some sums at a time, as Lua
    has at most 200 local variables."""
    pieces: list[list[str]] = []
    start, at, held = 0, 0, []
    for summary, (first, width) in packing.slots.items():
        if first + width - start > _AT_ONCE:
            pieces.append(_merged_piece(start, at, held))
            start, held = first, []
        held.append(
            _extreme_of(summary, first - start, width)
            if summary.what in ("lo", "hi")
            else " ".join(f"a{i} = a{i} + b{i}" for i in range(first - start, first - start + width))
        )
        at = first + width
    if held:
        pieces.append(_merged_piece(start, at, held))
    lines = ["local function summed(s, i, t, j)", "local out = ''", *(line for piece in pieces for line in piece)]
    return "\n".join([*lines, "return out", "end"])


_AT_ONCE = 80


def _merged_piece(start: int, end: int, merges: list[str]) -> list[str]:
    count = end - start
    doubles = "d" * count
    a, b = (", ".join(f"{name}{i}" for i in range(count)) for name in "ab")
    return [
        "do",
        f"local {a} = struct.unpack('<{doubles}', s, i + {start * 8})",
        f"local {b} = struct.unpack('<{doubles}', t, j + {start * 8})",
        *merges,
        f"out = out .. struct.pack('<{doubles}', {a})",
        "end",
    ]


def _extreme_of(summary: Summary, at: int, width: int) -> str:
    """The extreme of two, each a flag and limbs of which the last decides first; in local variables a and b."""
    sign = ">" if summary.what == "hi" else "<"
    better = f"b{at + 1} {sign} a{at + 1}"
    for limb in range(at + 2, at + width):
        better = f"b{limb} {sign} a{limb} or (b{limb} == a{limb} and ({better}))"
    a, b = (", ".join(f"{name}{i}" for i in range(at, at + width)) for name in "ab")
    return f"if b{at} ~= 0 and (a{at} == 0 or {better}) then {a} = {b} end"
