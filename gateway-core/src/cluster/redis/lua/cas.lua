-- Conexus, hooks' state: sets a value if the present one is the expected one; whether it did.
-- KEYS: it. ARGV: not after, "is" or "none", the expected value, the new one, milliseconds to live or "".
local present = redis.call('GET', KEYS[1])
if (ARGV[2] == 'none' and present) or (ARGV[2] == 'is' and present ~= ARGV[3]) then
  return 0
end
if ARGV[5] == '' then
  redis.call('SET', KEYS[1], ARGV[4])
elseif ARGV[5] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return 1
