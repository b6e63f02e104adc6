-- Conexus: replaces what is told of an agent, if it is still down with this member and epoch.
-- KEYS: directory. ARGV: not after, member, epoch, key, about it.
local before = redis.call('HGET', KEYS[1], ARGV[4])
local begins = ARGV[2] .. ' ' .. ARGV[3] .. ' '
if before and string.sub(before, 1, #begins) == begins then
  redis.call('HSET', KEYS[1], ARGV[4], begins .. ARGV[5])
end
return 1
