-- Conexus, claims and announcements: puts agents down as being on a member, each unless a newer
-- registration is known. With "all" it takes out what else the member has here.
-- KEYS: directory, last epoch, set of the member's agents, channel of changes.
-- ARGV: not after, member, "all" or "some"; then of each agent: key, "=EPOCH" or "-AGE" (microseconds), about it.
-- Answers of each: "won" or "lost", its epoch, and who has or had it: member and epoch, or two empty texts.
local directory, of, channel = KEYS[1], KEYS[3], KEYS[4]
local member = ARGV[2]
local first = tonumber(redis.call('GET', KEYS[2]) or '0')
local last = first
local answer, kept = {}, {}

local function answered(word, epoch, holder, held)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = word, text(epoch), holder, held
end

for i = 4, #ARGV, 3 do
  local key, when, about = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local epoch = tonumber(string.sub(when, 2))
  if string.sub(when, 1, 1) == '=' then
    last = math.max(last, epoch)
  else
    -- A clock that is behind, as one that was set back, knows of no age.
    local age = now > first and epoch or 0
    last = math.max(last + 1, now)
    epoch = last - age
  end
  kept[key] = true
  local before = redis.call('HGET', directory, key)
  local holder, held
  if before then
    holder, held = holder_of(before)
    before = holder and before
  end
  if before then
    -- Two registrations are never of the same moment; one that is announced again is.
    if held == epoch and holder ~= member and string.sub(when, 1, 1) == '-' then
      epoch = held + 1
      last = math.max(last, epoch)
    end
  end
  if before and held > epoch then
    if holder ~= member then
      redis.call('SREM', of, key)
    end
    answered('lost', epoch, holder, text(held))
  else
    local entry = member .. ' ' .. text(epoch) .. ' ' .. about
    if entry ~= before then
      redis.call('HSET', directory, key, entry)
    end
    redis.call('SADD', of, key)
    if not before then
      change(channel, key, 'C', member, epoch, '')
      answered('won', epoch, '', '')
    else
      if holder ~= member or held ~= epoch then
        change(channel, key, 'M', member, epoch, '')
      end
      answered('won', epoch, holder, text(held))
    end
  end
end

if last > first then
  redis.call('SET', KEYS[2], text(last))
end
if ARGV[3] == 'all' then
  for _, key in ipairs(redis.call('SMEMBERS', of)) do
    if not kept[key] then
      remove(directory, of, channel, member, key, nil, 'gone')
    end
  end
end
tell(channel)
return answer
