-- Conexus: renews a member's lease, or enters it, and tells who is there.
-- KEYS: roster, nodes, unburied. ARGV: not after, member, about it, lease in microseconds.
-- Answers: now, whether it entered, {member, what is left of its lease, about it} by turns, and the
-- members that were struck off and that nobody has buried in time.
local lease = tonumber(ARGV[4])
local entered = redis.call('ZADD', KEYS[1], text(now + lease), ARGV[2])
local nodes = {}
local told = redis.call('HGETALL', KEYS[2])
for i = 1, #told, 2 do
  nodes[told[i]] = told[i + 1]
end
if nodes[ARGV[2]] ~= ARGV[3] then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
  nodes[ARGV[2]] = ARGV[3]
end

-- A clock that was set back leaves deadlines behind that are too far away: the dead would stay for that long.
-- A member's own lease may be longer than that of whoever looks.
local function bring_near(set, member, deadline)
  if tonumber(deadline) > now + 2 * lease then
    local own = string.match(nodes[member] or '', '"lease_ms":(%d+)') or '0'
    local longer = math.max(lease, tonumber(own) * 1000)
    if tonumber(deadline) > now + 2 * longer then
      deadline = now + longer
      redis.call('ZADD', set, text(deadline), member)
    end
  end
  return tonumber(deadline)
end

local listed = {}
local roster = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #roster, 2 do
  local n = #listed
  listed[n + 1] = roster[i]
  listed[n + 2] = text(math.max(0, bring_near(KEYS[1], roster[i], roster[i + 1]) - now))
  listed[n + 3] = nodes[roster[i]] or ''
end

local late = {}
local unburied = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
for i = 1, #unburied, 2 do
  if bring_near(KEYS[3], unburied[i], unburied[i + 1]) <= now then
    late[#late + 1] = unburied[i]
  end
end
return {text(now), entered, listed, late}
