-- Conexus: takes a member off the roster whose lease is over, for one of many who try. That one is to bury
-- it in the time given; after that, whoever tries next.
-- KEYS: roster, nodes, unburied. ARGV: not after, member, time for the burial in microseconds.
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[2]) or redis.call('ZSCORE', KEYS[3], ARGV[2])
if not deadline or tonumber(deadline) > now then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[3], text(now + tonumber(ARGV[3])), ARGV[2])
return 1
