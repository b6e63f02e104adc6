-- Conexus: which agents are not down as being on a member: their places, from 0.
-- KEYS: directory. ARGV: not after, member, then keys of agents.
local answer = {}
for i = 3, #ARGV do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if not entry or holder_of(entry) ~= ARGV[2] then
    answer[#answer + 1] = i - 3
  end
end
return answer
