-- Conexus: which agents are not down as being on a member: their places, from 0.
-- KEYS: directory. ARGV: not after, member, then keys of agents.
local answer = {}
local entries = redis.call('HMGET', KEYS[1], unpack(ARGV, 3))
for i = 1, #entries do
  local entry = entries[i]
  if not entry or string.sub(entry, 1, 16) ~= ARGV[2] then
    answer[#answer + 1] = i - 1
  end
end
return answer
