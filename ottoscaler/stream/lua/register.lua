-- Write delivered events down. Per event the epoch, 0 = offered, -1 = not ours, -2 = its request id means an event that
-- asked for the same, -3 = one that asked for something else.

local function is_dead_letter(id)
  return string.find(redis.call('GET', key('done', id)) or '', '^dlq ') ~= nil
end

-- Claim the request id, or say why not. A dead letter that is replayed goes on under the request id that it had.
local function judge_request(id, request_id, content, replay_of)
  local stands = redis.call('HMGET', key('request', request_id), 'event', 'content')
  if stands[1] == id then
    return nil
  end
  local is_replay = stands[1] and stands[1] == replay_of and is_dead_letter(replay_of)
  if stands[1] and not is_replay and not is_nowhere(stands[1]) then
    return is_same(stands[2], content) and -2 or -3
  end
  claim_request(request_id, id, content, '')
end

local function register(id, lane, entry, task_id, planned, offer, request_id, content, replay_of)
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
  local refused = request_id ~= '' and judge_request(id, request_id, content, replay_of)
  if refused then
    return refused
  end
  local epoch = offer and 0 or 1
  redis.call('HSET', progress, 'v', VERSION, 'lane', lane, 'owner', offer and '' or me, 'epoch', epoch,
    'entry', entry, 'task_id', task_id, 'planned', planned, 'registered', text(now()))
  redis.call('ZADD', key('live'), time_in(id), id)
  if offer then
    redis.call('ZADD', key('offered', lane), due_of(id), id)
  else
    redis.call('HSET', progress, 'trial', epoch)
    hold(id)
  end
  return epoch
end

local refusal, epochs = refuse_past(args.era), {}
if refusal then
  return refusal
end
for position, registration in ipairs(args.registrations) do
  epochs[position] = register(unpack(registration))
end
return epochs
