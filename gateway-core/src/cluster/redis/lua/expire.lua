-- Conexus, hooks' state: gives a value another time to live; whether there was one.
-- KEYS: it. ARGV: not after, milliseconds to live or "".
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
elseif ARGV[2] == '' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
