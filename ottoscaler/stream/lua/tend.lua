-- One look at all that is due: {notices, taken, strays, fences, offered}. The same `call` again gives again what it
-- gave, and what is due since.
local STRAYS = 100 -- entries claimed from dead sessions in one call
local FENCES = 100 -- fences lent in one call
local FENCE_LOAN = 10000 -- ms
local SESSIONS = 20 -- expired sessions looked at in one call
local SEEN = 5000 -- offered events of a lane looked at in one call, to get past those that may not be taken
local MOST = 20000 -- names and values of taken events in one call; the event that reaches it is the last
local at, read = now(), 0
local taken, taken_ids, notices, strays = {}, {}, {}, {}

local function add_taken(id)
  local flat = redis.call('HGETALL', key('progress', id))
  read = read + #flat
  taken[#taken + 1] = { id, flat }
  taken_ids[#taken_ids + 1] = id
end

local function notice_all(ids, seen)
  for _, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      notices[#notices + 1] = id
    end
  end
end

local function look_at_notices(again)
  local seen = {}
  notice_all(again, seen)
  notice_all(redis.call('SMEMBERS', key('notices', me)), seen)
  redis.call('DEL', key('notices', me))
  table.sort(notices)
end

local function audit()
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local facts = {}
    for position = 1, #consumer, 2 do
      facts[consumer[position]] = consumer[position + 1]
    end
    if facts.name ~= me and facts.pending > 0 then
      redis.call('ZADD', key('sessions'), 'NX', 0, facts.name)
    end
  end
end

-- Offer up to `budget` events that an expired session held; how many they were.
local function offer_all(session, budget)
  local ids = redis.call('SPOP', key('held', session), budget)
  for _, id in ipairs(ids) do
    if redis.call('HGET', key('progress', id), 'owner') == session then
      make_offered(id, due_of(id))
    end
  end
  return #ids
end

-- Claim what was delivered to an expired session only; true where some of it was trimmed away and stays pending,
-- because a claim would remove a trimmed entry from the pending ones.
local function claim_strays(session)
  local is_trimmed = false
  for _, entry in ipairs(unregistered(session, STRAYS - #strays)) do
    if entry[2] then
      redis.call('XCLAIM', stream, group, me, 0, entry[1], 'JUSTID')
    else
      is_trimmed = true
    end
    strays[#strays + 1] = entry
  end
  return is_trimmed
end

local function expire()
  local budget = PAGE
  for _, session in ipairs(redis.call('ZRANGEBYSCORE', key('sessions'), '-inf', at, 'LIMIT', 0, SESSIONS)) do
    if session ~= me then
      budget = budget - offer_all(session, budget)
      if budget <= 0 or redis.call('SCARD', key('held', session)) > 0 then
        return
      end
      local is_trimmed = claim_strays(session)
      if #strays >= STRAYS then
        return
      end
      if not is_trimmed then
        forget_session(session)
      end
    end
  end
end

-- How often the handling of an event broke: each owner that went without a sign after taking it counts.
local function failures_of(progress)
  local fields = redis.call('HMGET', progress, 'trial', 'failures')
  if fields[1] then
    redis.call('HDEL', progress, 'trial')
    return redis.call('HINCRBY', progress, 'failures', 1)
  end
  return tonumber(fields[2] or 0)
end

local function take_one(id, progress)
  redis.call('HSET', progress, 'owner', me)
  local epoch = redis.call('HINCRBY', progress, 'epoch', 1)
  redis.call('HSET', progress, 'trial', epoch)
  hold(id)
  redis.pcall('XCLAIM', stream, group, me, 0, id, 'JUSTID') -- without the group the progress says enough
  add_taken(id)
  redis.call('HDEL', progress, 'clean')
end

-- What of a lane may be taken: at most `room` events that never broke, and the first that did. In the control lane wait also
-- events that are to be stopped: commands wait for them, so a page of them is taken whatever the room. Another page is looked
-- at only where what may not be taken stands in the way: a newer version's, or commands without room.
local is_alone = false
local function look_through(lane, room, healthy)
  local suspect, from, passed, stops = nil, 0, 0, lane == 'control' and PAGE or 0
  repeat
    local count = (room > 0 or stops > 0) and PAGE or 0
    local ids = redis.call('ZRANGEBYSCORE', key('offered', lane), '-inf', at, 'LIMIT', from, count)
    from, passed = from + PAGE, 0
    for _, id in ipairs(ids) do
      local progress = key('progress', id)
      local fields = redis.call('HMGET', progress, 'lane', 'v')
      local is_stop = lane == 'control' and fields[1] ~= 'control'
      if room <= 0 and stops <= 0 then
        break
      elseif not fields[1] then
        redis.call('ZREM', key('offered', lane), id)
      elseif is_newer(fields[2]) or (is_stop and stops or room) <= 0 then
        passed = passed + 1
      elseif failures_of(progress) > 0 then
        suspect = suspect or { lane, id, progress }
      else
        room, stops = room - (is_stop and 0 or 1), stops - (is_stop and 1 or 0)
        healthy[#healthy + 1] = { lane, id, progress }
      end
    end
  until passed == 0 or (room <= 0 and stops <= 0) or from >= SEEN
  return suspect
end

-- Take what fits. An event that broke before is taken alone, so that it takes no other down with it; it has every eighth turn, so
-- that many of them do not hold up the others.
local function take(rooms)
  local healthy, suspect = {}, nil
  for position, lane in ipairs(LANES) do
    suspect = look_through(lane, rooms[position], healthy) or suspect
  end
  if suspect and #taken == 0 and (#healthy == 0 or tonumber(args.call) % 8 == 0) then
    healthy = { suspect }
  elseif is_alone then
    return
  end
  for _, found in ipairs(healthy) do
    if read >= MOST then
      break
    end
    redis.call('ZREM', key('offered', found[1]), found[2])
    take_one(found[2], found[3])
  end
end

local function lend_fences()
  local due = redis.call('ZRANGEBYSCORE', key('fences'), '-inf', at, 'WITHSCORES', 'LIMIT', 0, FENCES)
  for position = 1, #due, 2 do
    redis.call('ZADD', key('fences'), at + FENCE_LOAN, due[position])
  end
  return due
end

local refusal = refuse_past(args.era)
if refusal then
  return refusal
end
local last = redis.call('HMGET', key('tended', me), 'call', 'notices', 'taken')
local is_repeated = last[1] == args.call
look_at_notices(is_repeated and cjson.decode(last[2]) or {})
if args.audit then
  audit()
end
if args.expire then
  expire()
end
for _, id in ipairs(is_repeated and cjson.decode(last[3]) or {}) do
  if redis.call('HGET', key('progress', id), 'owner') == me then
    add_taken(id)
    is_alone = is_alone or tonumber(redis.call('HGET', key('progress', id), 'failures') or 0) > 0
  end
end
take({ args.work - #taken, args.control, args.pipelines })
if #notices > 0 or #taken > 0 then
  redis.call('HSET', key('tended', me), 'call', args.call,
    'notices', list_text(notices), 'taken', list_text(taken_ids))
end
local pending = redis.pcall('XPENDING', stream, group)
return { notices, taken, strays, lend_fences(), redis.call('ZCARD', key('offered', 'work')), pending[1] == 0 and 1 or 0 }
