"""The Lua scripts that write packed rows in Redis, made for one definition.

What goes here: Lua of writes. What does not: reads (``redis_read_script``), sending (``redis_online``), bytes
(``packed_form``). Pure.

Keys: ``BASE`` is a hash: ``g`` names the generation that answers, a partition's number its progress as text
``offset:replays:top:last append:caught up:updated`` (empty: none). ``BASE:<g>:<entity>`` holds an entity's rows, and with
``:<id>`` behind it the events of a closed row; ``BASE:<g>`` counts the messages of a load. Names are made inside the scripts, so a Redis Cluster is not supported.
"""

from __future__ import annotations

from ct_assets.adapters.stream.layout import ROW_EVENTS
from ct_assets.adapters.stream.packed_form import FULL, ITEM_FORMAT, ROW_FOOT, ROW_FORMAT, Packing
from ct_assets.adapters.stream.redis_sums_script import sums_of

TIDY_BYTES = 1_024  # an entity's rows are put together when they grow over a multiple of this

PROGRESS = """
local function progress(text)
  local offset, replays = string.match(text or '-2:0', '^(-?%d+):(%d+)')
  return tonumber(offset), tonumber(replays)
end
"""

_WRITE = """
-- KEYS: BASE. ARGV: generation, live | load, offset | replays, ms to live, items, number of the message, then for each
-- partition: number, progress, from, to, the time before which rows may go. A load adds whatever it is sent, but each of its messages
-- (1, 2, ...) once: clients send again.
-- Returns {'ok'}, {'generation'} or {'gap'}: nothing was written; {'overlap', entity, partition, version, ...}: these
-- hold a part of the delta already, all others are written.
local base, generation, by_offset, px = KEYS[1], ARGV[1], ARGV[3] == 'offset', ARGV[4]
local live, from, to, below = ARGV[2] == 'live', {}, {}, {}
for i = 7, #ARGV, 5 do
  local part = tonumber(ARGV[i])
  from[part], to[part], below[part] = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
end
if live then
  if redis.call('HGET', base, 'g') ~= generation then return {'generation'} end
  for i = 7, #ARGV, 5 do
    local offset, replays = progress(redis.call('HGET', base, ARGV[i]) or nil)
    if (by_offset and offset or replays) ~= tonumber(ARGV[i + 1]) then return {'gap'} end
  end
else
  local counted = base .. ':' .. generation
  if tonumber(ARGV[6]) <= tonumber(redis.call('GET', counted) or 0) then return {'ok'} end
  redis.call('SET', counted, ARGV[6])
end
local prefix, blob, p, found = base .. ':' .. generation .. ':', ARGV[5], 1, {'ok'}
local read, pack, sub, call = struct.unpack, struct.pack, string.sub, redis.call
local floor, max, min = math.floor, math.max, math.min

-- the version of a partition's newest row that says one: versions never fall from a row to the next of its partition
local function version_of(rows, number)
  local stop = #rows - 4
  while stop > 0 do
    local size, _, _, part, _, offset, replays = read('ROW', rows, stop - FOOT + 1)
    local version = by_offset and offset or replays
    if part == number and version >= 0 then return version end
    stop = stop - size
  end
  return -2
end

-- one row for all open ones of a partition and tile; full ones are closed; what no window reaches goes. Closed rows lie
-- before open ones and are looked at when one more is closed
local function tidy(key, full)
  local rows = call('GET', key)
  local stop, last_id, closed, open, named, tops = #rows - 4, 0, {}, {}, {}, {}
  while stop > 0 do
    local start_foot = stop - FOOT + 1
    local size, last, first, part, tile, offset, replays, id, n = read('ROW', rows, start_foot)
    local start, top = stop - size + 1, tops[part]
    if top then
      top[1], top[2] = max(top[1], offset), max(top[2], replays)
    else
      tops[part] = {offset, replays}
    end
    if id > 0 and id < NEW then
      if id > last_id then last_id = id end
      if not full then
        closed[#closed + 1] = sub(rows, 1, stop)
        break
      end
    end
    if last < (below[part] or last) then
      if id > 0 and id < NEW then call('UNLINK', key .. ':' .. id) end
    elseif id == 0 then
      local name = sub(rows, start_foot + 20, start_foot + 31)
      local row = named[name]
      if row then
        row[1], row[2], row[5] = max(row[1], last), min(row[2], first), row[5] + n
        row[#row + 1] = sub(rows, start, start_foot - 1)
      else
        row = {last, first, part, tile, n, sub(rows, start, start_foot - 1)}
        named[name], open[#open + 1] = row, row
      end
    elseif id == NEW then
      open[#open + 1] = {last, first, part, tile, n, sub(rows, start + SUMS * 8, start_foot - 1), sub(rows, start, start + SUMS * 8 - 1)}
      open[#open].is_new = true
    else
      closed[#closed + 1] = sub(rows, start, stop)
    end
    stop = start - 1
  end
  local out, behind = {}, {}
  for i = #closed, 1, -1 do out[#out + 1] = closed[i] end
  for i = #open, 1, -1 do
    local row = open[i]
    local top, body, id, n = tops[row[3]], nil, 0, row[5]
    if row.is_new or n >= MOST then
      local events, sums = row[6], row[7]
      if not row.is_new then
        events = table.concat(row, '', 6)
        sums = sums_of(events)
      end
      last_id = last_id + 1
      id, body = last_id, sums
      call('SET', key .. ':' .. id, events, 'PX', px)
    else
      body = table.concat(row, '', 6)
    end
    local text = body .. pack('ROW', #body + FOOT, row[1], row[2], row[3], row[4], top[1], top[2], id, n)
    if id > 0 then out[#out + 1] = text else behind[#behind + 1] = text end
  end
  local text = table.concat(out) .. table.concat(behind)
  if text == '' then call('UNLINK', key) else call('SET', key, text .. pack('<I4', #text), 'PX', px) end
end

while p <= #blob do
  local size, key_size, part, full, tile, row, row_last, row_first, row_n, at_name = read('ITEM', blob, p)
  local name = sub(blob, at_name, at_name + key_size - 1)
  local start, final = at_name + key_size + -key_size % 4, p + size - 1
  local key = prefix .. name
  local foot = call('GETRANGE', key, -FOOT - 4, -1)
  if foot == '' then
    call('SET', key, sub(blob, start, final) .. pack('<I4', final - start + 1), 'PX', px)
    if full > 0 then tidy(key, true) end
  else
    local last_size, last, first, last_part, last_tile, offset, replays, id, n, length = read('ROW_END', foot, 1)
    local apply = true
    if live then
      local version = by_offset and offset or replays
      if last_part ~= part or version < 0 then version = version_of(call('GET', key), part) end
      if version > from[part] then
        apply = false
        if version < to[part] then
          found[1] = 'overlap'
          found[#found + 1] = name
          found[#found + 1] = part
          found[#found + 1] = version
        end
      end
    end
    if apply then
      local now
      local same = id == 0 and last_part == part and last_tile == tile
      if same and n + row_n < MOST then
        -- the events come behind those of the open row, in place of its foot; a foot of both, and rows that follow
        local grown = row - FOOT
        now = length + final - start + 1 - FOOT
        if row_last > last then last = row_last end
        if row_first < first then first = row_first end
        if by_offset then offset = to[part] else replays = to[part] end
        local text = sub(blob, start, start + grown - 1)
        local size_now, n_now = last_size + grown, n + row_n
        if start + row > final then
          text = text .. pack('ROW_END', size_now, last, first, part, tile, offset, replays, 0, n_now, now)
        else
          text = text .. pack('ROW', size_now, last, first, part, tile, offset, replays, 0, n_now)
            .. sub(blob, start + row, final) .. pack('<I4', now)
        end
        call('SETRANGE', key, length - FOOT, text)
      else
        now = length + final - start + 1
        call('SETRANGE', key, length, sub(blob, start, final) .. pack('<I4', now))
        if same then full = 1 end
      end
      if full > 0 or now - length >= EVERY or now % EVERY < length % EVERY then tidy(key, full > 0)
      -- a time to live costs half as much as the write: it is renewed with each new tile, and reaches a tile further
      elseif last_tile ~= tile then call('PEXPIRE', key, px) end
    end
  end
  p = p + size
end
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
    return filled(packing, "\n".join([PROGRESS, sums_of(packing), _WRITE]))


def filled(packing: Packing, text: str) -> str:
    """A script with the numbers and formats of a definition in place of their names."""
    known = {
        "LONGEST": packing.layout.definition.max_window_us,
        "SUMS": packing.sums,
        "FOOT": ROW_FOOT.itemsize,
        "MOST": ROW_EVENTS,
        "NEW": FULL,
        "EVERY": TIDY_BYTES,
    }
    for name, value in known.items():
        text = text.replace(name, str(value))
    formats = {"ROW": ROW_FORMAT, "ROW_END": ROW_FORMAT + "I4", "ITEM": ITEM_FORMAT}
    for name, found in formats.items():
        text = text.replace(f"'{name}'", f"'{found}'")
    return text
