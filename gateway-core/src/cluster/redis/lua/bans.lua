-- Conexus, bans: all that hold, unless they are as of what is known already.
-- KEYS: bans, their ends, what they are as of. ARGV: not after, the known origin and version, or two empty texts.
-- Answers: origin, version, {key, how long in microseconds, about it} by turns; or nothing.
local as_of = redis.call('HMGET', KEYS[3], 'origin', 'version')
local origin, version = as_of[1] or '0', as_of[2] or '0'
if origin == ARGV[2] and version == ARGV[3] then
  return {}
end
local listed = {}
local ends = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for i = 1, #ends, 2 do
  local left = tonumber(ends[i + 1]) - now
  local about = redis.call('HGET', KEYS[1], ends[i])
  if left > 0 and about then
    local n = #listed
    listed[n + 1], listed[n + 2], listed[n + 3] = ends[i], text(left), about
  end
end
return {origin, version, listed}
