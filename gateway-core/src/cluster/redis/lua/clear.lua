-- Conexus: takes all agents of a member out of one part of the directory.
-- KEYS: directory, set of the member's agents, channel of changes. ARGV: not after, member, reason.
for _, key in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  remove(KEYS[1], KEYS[2], KEYS[3], ARGV[2], key, nil, ARGV[3])
end
redis.call('DEL', KEYS[2])
tell(KEYS[3])
return 1
