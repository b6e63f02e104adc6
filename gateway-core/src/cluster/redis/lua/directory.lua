-- Conexus, the directory: what its scripts share. An entry is "MEMBER EPOCH AGENT"; MEMBER has 16 digits.
-- Of anything else that somebody put there, nothing.
local function holder_of(entry)
  local member, epoch = string.match(entry, '^(%x+) (%d+) ')
  if member and #member == 16 then
    return member, tonumber(epoch)
  end
end

-- Changes are told together: KEY KIND MEMBER EPOCH " " REASON "\n", of which KEY has 32 bytes, KIND one.
local changes = {}

local function tell(channel)
  if #changes > 0 then
    redis.call('SPUBLISH', channel, table.concat(changes))
    changes = {}
  end
end

local function change(channel, key, kind, member, epoch, reason)
  changes[#changes + 1] = key .. kind .. member .. text(epoch) .. ' ' .. reason .. '\n'
  if #changes == 1000 then
    tell(channel)
  end
end

-- Takes an agent out if it is down with this member and epoch; any epoch will do if there is none.
local function remove(directory, of, channel, member, key, epoch, reason)
  local entry = redis.call('HGET', directory, key)
  local holder, held
  if entry then
    holder, held = holder_of(entry)
  end
  if holder == member and (epoch == nil or held == epoch) then
    redis.call('HDEL', directory, key)
    change(channel, key, 'L', member, held, reason)
    holder = nil
  end
  if holder ~= member then
    redis.call('SREM', of, key)
  end
end
