-- Conexus, hooks' state: adds to a number, and gives the sum as a text, since a number of Lua's has 53 bits.
-- KEYS: it. ARGV: not after, what is added, milliseconds to live from when it is made or "".
local is_new = redis.call('EXISTS', KEYS[1]) == 0
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[2])
if type(sum) == 'table' then
  return sum
end
local written = redis.call('GET', KEYS[1])
if is_new and ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
elseif is_new and ARGV[3] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return written
