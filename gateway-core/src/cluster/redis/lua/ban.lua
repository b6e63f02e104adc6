-- Conexus, bans: puts some down, lifts others. Nothing is done if that makes too many.
-- KEYS: bans, their ends, what they are as of.
-- ARGV: not after, how many there may be, how many are put down; of each of these: key, how long in
-- microseconds, about it; then the keys of those that are lifted.
local bans, ends, as_of = KEYS[1], KEYS[2], KEYS[3]
for _, key in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', text(now))) do
  redis.call('HDEL', bans, key)
  redis.call('ZREM', ends, key)
end

local count = tonumber(ARGV[3])
local first_lifted = 4 + 3 * count
local total = redis.call('ZCARD', ends)
for i = 4, first_lifted - 1, 3 do
  if not redis.call('ZSCORE', ends, ARGV[i]) then
    total = total + 1
  end
end
for i = first_lifted, #ARGV do
  if redis.call('ZSCORE', ends, ARGV[i]) then
    total = total - 1
  end
end
if total > tonumber(ARGV[2]) then
  return 0
end

for i = first_lifted, #ARGV do
  redis.call('HDEL', bans, ARGV[i])
  redis.call('ZREM', ends, ARGV[i])
end
for i = 4, first_lifted - 1, 3 do
  redis.call('HSET', bans, ARGV[i], ARGV[i + 2])
  redis.call('ZADD', ends, text(now + tonumber(ARGV[i + 1])), ARGV[i])
end
-- Another engine, or one that has lost its memory, began at another time.
redis.call('HSETNX', as_of, 'origin', text(now))
redis.call('HINCRBY', as_of, 'version', 1)
return 1
