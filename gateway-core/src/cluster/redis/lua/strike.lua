-- Conexus: takes a member off the roster whose lease is over, or in any case, for one of many who try.
-- Who does so has for one lease the task to bury it, unless it was in any case; after that, whoever tries.
-- KEYS: roster, nodes, buried. ARGV: not after, member, "1" for in any case, lease in microseconds.
local member = ARGV[2]
local deadline = redis.call('ZSCORE', KEYS[1], member)
local about
if deadline then
  if ARGV[3] ~= '1' and tonumber(deadline) > now then
    return 0
  end
  about = redis.call('HGET', KEYS[2], member) or ''
  redis.call('ZREM', KEYS[1], member)
  redis.call('HDEL', KEYS[2], member)
else
  local noted = redis.call('HGET', KEYS[3], member)
  local until_then
  if noted then
    until_then, about = string.match(noted, '^(%d+) (.*)$')
  end
  if not noted or tonumber(until_then) > now then
    return 0
  end
end
if ARGV[3] ~= '1' then
  redis.call('HSET', KEYS[3], member, text(now + tonumber(ARGV[4])) .. ' ' .. about)
end
return 1
