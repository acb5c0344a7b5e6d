-- Record accepted attempts, ended attempts and outcomes. Per event false = not ours, or the outcomes that now stand.
local counts -- of workers, of the event at hand: `created`, `not_created`, `ended`, `retried`

local function set_once(id, field, value)
  local is_new = redis.call('HEXISTS', key('progress', id), field) == 0
  if is_new then
    redis.call('HSET', key('progress', id), field, value)
  end
  return is_new
end

local function accept(id, field, value)
  if not set_once(id, field, value) then
    return
  end
  local index, attempt = string.match(field, '^a:(%d+):(%d+)$')
  for earlier = 1, tonumber(attempt) - 1 do
    if redis.call('HEXISTS', key('progress', id), 'a:' .. index .. ':' .. earlier) == 1 then
      return
    end
  end
  counts.created = counts.created + 1
end

local function count(id)
  for name, number in pairs(counts) do
    if number > 0 then
      redis.call('HINCRBY', key('progress', id), name, number)
    end
  end
end

-- An outcome, final unless `retried` names the field of an attempt after which there will be another; `if_stopped` holds,
-- by the cause of a stop mark, what it is where one stands.
local function settle(id, index, outcome, if_stopped, retried)
  local progress = key('progress', id)
  local stands = redis.call('HMGET', progress, 'o:' .. index, 's:' .. index, 'a:' .. index .. ':1')
  if stands[1] then
    return stands[1]
  end
  local mark = stands[2] and cjson.decode(stands[2])
  local stopped = mark and (if_stopped[mark.cause] or if_stopped.Stopped)
  if stopped then
    outcome = stopped
  elseif retried ~= '' then
    counts.retried = counts.retried + (set_once(id, retried, outcome) and 1 or 0)
    return redis.call('HGET', progress, retried)
  end
  redis.call('HSET', progress, 'o:' .. index, outcome)
  counts.ended = counts.ended + 1
  if not stands[3] and not was_created(id, index) then
    counts.not_created = counts.not_created + 1
  end
  if mark then
    redis.call('HINCRBY', progress, 'stopping', -1)
    tell_asker(mark.by, id, index, outcome)
  end
  return outcome
end

local written = {}
for position, writing in ipairs(args.writings) do
  local claim, accepted, outcomes, troubles, news = unpack(writing)
  local id = claim[1]
  if is_held(unpack(claim)) then
    counts = { created = 0, not_created = 0, ended = 0, retried = 0 }
    redis.call('HDEL', key('progress', id), 'trial')
    for _, attempt in ipairs(accepted) do
      accept(id, attempt[1], attempt[2])
      set_once(id, 'started', attempt[3])
    end
    for _, trouble in ipairs(troubles) do
      redis.call('HSET', key('progress', id), trouble[1], trouble[2], 'trouble', trouble[2])
    end
    local standing = {}
    for number, outcome in ipairs(outcomes) do
      standing[number] = settle(id, unpack(outcome))
    end
    count(id)
    if news[1] then
      tell(id, news)
    end
    written[position] = standing
  else
    written[position] = false
  end
end
return written
