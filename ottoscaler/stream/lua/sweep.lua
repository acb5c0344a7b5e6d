-- Which of these events are known: in progress, or delivered and not acknowledged. On the way a page of live events is put right
-- where no script of ours would leave it so, and consumers are removed that have nothing pending and are long gone.
local refusal, known = refuse_past(args.era), {}
if refusal then
  return refusal
end
for _, id in ipairs(args.ids) do
  if redis.call('EXISTS', key('progress', id)) == 1 or pending(id) then
    known[#known + 1] = id
  end
end

local function is_offered(id)
  for _, lane in ipairs(LANES) do
    if redis.call('ZSCORE', key('offered', lane), id) then
      return true
    end
  end
  return false
end

local live = redis.call('ZRANGEBYSCORE', key('live'), '-inf', '+inf', 'LIMIT', args.from, PAGE)
for _, id in ipairs(live) do
  local owner = redis.call('HGET', key('progress', id), 'owner')
  if not owner then
    redis.call('ZREM', key('live'), id)
  elseif owner == '' and not is_offered(id) then
    make_offered(id, now())
  elseif owner ~= '' and not redis.call('ZSCORE', key('sessions'), owner) then
    redis.call('SREM', key('held', owner), id)
    make_offered(id, now())
  end
end

for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local facts = {}
  for position = 1, #consumer, 2 do
    facts[consumer[position]] = consumer[position + 1]
  end
  local is_gone = facts.pending == 0 and facts.idle > args.gone_after
  if is_gone and facts.name ~= me and not redis.call('ZSCORE', key('sessions'), facts.name) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, facts.name)
  end
end
return { known, #live }
