-- Conexus, hooks' state: removes a value; whether there was one. KEYS: it. ARGV: not after.
return redis.call('DEL', KEYS[1])
