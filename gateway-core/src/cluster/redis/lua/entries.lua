-- Conexus: what a member has in one part of the directory: keys and entries by turns.
-- KEYS: directory, set of the member's agents. ARGV: not after, member.
local answer = {}
for _, key in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local entry = redis.call('HGET', KEYS[1], key)
  if entry and holder_of(entry) == ARGV[2] then
    answer[#answer + 1] = key
    answer[#answer + 1] = entry
  end
end
return answer
