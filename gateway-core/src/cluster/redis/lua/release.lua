-- Conexus: takes agents out of the directory, each if it is still down with this member and epoch.
-- KEYS: directory, set of the member's agents, channel of changes.
-- ARGV: not after, member; then of each agent: key, epoch, reason.
for i = 3, #ARGV, 3 do
  remove(KEYS[1], KEYS[2], KEYS[3], ARGV[2], ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2])
end
tell(KEYS[3])
return 1
