-- Conexus, scripts of a cluster, version 1. Each begins with this.
-- ARGV[1] is the moment after which it comes too late, by the engine's clock, in microseconds since 1970.
-- Such numbers are exact in a double until 2255; they are written without an exponent.
local function text(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[1]) then
  return redis.error_reply('LATE it is ' .. text(now) .. ', and this was to be done until ' .. ARGV[1])
end
