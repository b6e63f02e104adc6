-- Conexus: takes a member off the roster that leaves in order. KEYS: roster, nodes. ARGV: not after, member.
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
return 1
