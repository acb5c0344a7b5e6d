-- What waits: entries of the stream; events not delivered or offered (-1: unknown); the age of the oldest (ms).
local entries, mine = redis.call('XLEN', stream), nil
local groups = redis.pcall('XINFO', 'GROUPS', stream)
for _, flat in ipairs(groups.err and {} or groups) do
  local fields = {}
  for position = 1, #flat, 2 do
    fields[flat[position]] = flat[position + 1]
  end
  if fields.name == group then
    mine = fields
  end
end
if not mine then
  return { entries, -1, -1 }
end

local after, time = '(' .. mine['last-delivered-id'], now()
local first = redis.call('XRANGE', stream, after, '+', 'COUNT', 1)[1]
local waiting, oldest = 0, first and time_in(first[1]) or time
if first then
  waiting = tonumber(mine.lag or -1)
  if waiting < 0 then
    waiting = #redis.call('XRANGE', stream, after, '+', 'COUNT', 1000)
  end
end
if waiting >= 1000 and not mine.lag then
  waiting = -1
end
for _, lane in ipairs(LANES) do
  local offered = key('offered', lane)
  waiting = waiting < 0 and waiting or waiting + redis.call('ZCARD', offered)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', offered, '-inf', '+inf', 'LIMIT', 0, 1000)) do
    oldest = math.min(oldest, time_in(id))
  end
end
return { entries, waiting, math.max(0, time - oldest) }
