-- Conexus: takes agents that moved away out of the set of a member's agents.
-- KEYS: directory, set of the member's agents. ARGV: not after, member; then keys.
for i = 3, #ARGV do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if not entry or holder_of(entry) ~= ARGV[2] then
    redis.call('SREM', KEYS[2], ARGV[i])
  end
end
return 1
