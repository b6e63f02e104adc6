-- Conexus, hooks' state: whether one more is within a rate, which then counts it. The generic cell rate
-- algorithm, as the gateway's own. What is kept is when the burst is whole again: microseconds since 1970,
-- and units beyond them. A unit is a nanosecond; where that would not be exact, a microsecond.
-- KEYS: the rate. ARGV: not after, what one costs in units, what a burst costs, units in a microsecond.
local interval, burst, units = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local debt = 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local micros, rest = string.match(kept, '^(%d+) (%d+)$')
  -- A rest was put down in nanoseconds.
  debt = math.max(0, (tonumber(micros) - now) * units + (units == 1 and 0 or tonumber(rest)))
  -- The clock went back, or the rate was another: never more than a whole burst is owed.
  if debt > burst + 1000000 * units then
    debt = burst
  end
end
local admitted = debt + interval <= burst
if admitted then
  debt = debt + interval
end
if debt > 0 then
  local rest = debt % units
  local whole = text(now + (debt - rest) / units) .. ' ' .. text(rest)
  if whole ~= kept then
    redis.call('SET', KEYS[1], whole, 'PX', text(math.ceil(debt / units / 1000)))
  end
end
return admitted and 1 or 0
