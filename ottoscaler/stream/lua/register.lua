-- Write delivered events down. Per event the epoch, 0 = offered, -1 = not ours.
local function register(id, lane, entry, task_id, planned, offer)
  local progress = key('progress', id)
  local stands = redis.call('HMGET', progress, 'owner', 'epoch')
  if stands[2] then
    if stands[1] == me then
      return tonumber(stands[2])
    end
    return stands[1] == '' and 0 or -1
  end
  if redis.call('EXISTS', key('done', id)) == 1 then
    redis.call('XACK', stream, group, id)
    return -1
  end
  local delivered = pending(id)
  if not delivered or delivered[2] ~= me then
    return -1
  end
  local epoch = offer and 0 or 1
  redis.call('HSET', progress, 'v', '1', 'lane', lane, 'owner', offer and '' or me, 'epoch', epoch,
    'entry', entry, 'task_id', task_id, 'planned', planned, 'registered', text(now()))
  redis.call('ZADD', key('live'), time_in(id), id)
  if offer then
    redis.call('ZADD', key('offered', lane), time_in(id), id)
  else
    redis.call('HSET', progress, 'trial', epoch)
    hold(id)
  end
  return epoch
end

local epochs = {}
for position, registration in ipairs(args.registrations) do
  epochs[position] = register(unpack(registration))
end
return epochs
