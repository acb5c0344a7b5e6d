-- What every script begins with. KEYS[1] is the event stream; ARGV: prefix of all other keys, group, session, and the
-- arguments as JSON. Numbers that become part of a text go through `text`: `..` would round a time in milliseconds.
local stream, prefix, group, me = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local args = cjson.decode(ARGV[4])
local LANES = { 'work', 'control', 'pipelines' }
local PAGE = 500 -- at most so many values are handled or unpacked at once
local VERSION = 1 -- of progress; what a newer version wrote is left to those who know it

local function key(...)
  return table.concat({ prefix, ... }, ':')
end

local function text(number)
  return string.format('%.0f', number)
end

local function list_text(list)
  return #list == 0 and '[]' or cjson.encode(list)
end

-- The time in ms, one for all of a script; before Redis 7 its own clock goes on while a script runs.
local at
local function now()
  local time = at or redis.call('TIME')
  at = time
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function time_in(id)
  return tonumber(string.match(id, '^%d+'))
end

-- From when on an offered event may be taken: the time in its id puts the oldest first. Where that lies in the future, because
-- a producer makes ids of its own or the clock of Redis went back, the event waits for nothing.
local function due_of(id)
  return math.min(time_in(id), now())
end

-- What a session is answered that began in another era: Redis has forgotten all that it knows, and others began anew. What it
-- made now would bear the label of an era that is over, and what it does not find here is no orphan.
local function refuse_past(era)
  if era and redis.call('HGET', key('era'), 'id') ~= era then
    return redis.error_reply('NOGROUP the era of this session is over')
  end
end

-- The fencing token: every writing script begins with it.
local function is_held(id, session, epoch)
  local stands = redis.call('HMGET', key('progress', id), 'owner', 'epoch')
  return stands[1] == session and stands[2] == epoch
end

-- Whether a newer version wrote a progress, given its field `v`.
local function is_newer(v)
  return tonumber(v or VERSION) > VERSION
end

-- Hold an event; an unknown session becomes one that has expired, so that others look at it.
local function hold(id)
  redis.call('SADD', key('held', me), id)
  redis.call('ZADD', key('sessions'), 'NX', now(), me)
end

-- Nobody's any more from `due` on; where a stop mark waits for an outcome it waits for no scaling.
local function make_offered(id, due)
  local progress = key('progress', id)
  redis.call('HSET', progress, 'owner', '')
  local fields = redis.call('HMGET', progress, 'lane', 'stopping')
  local lane = tonumber(fields[2] or 0) > 0 and 'control' or fields[1]
  redis.call('ZADD', key('offered', lane), due, id)
end

-- XPENDING of one entry: {id, consumer, idle, deliveries} or nil.
local function pending(id, of_group)
  return redis.call('XPENDING', stream, of_group or group, id, id, 1)[1]
end

-- The last id that our group was delivered, false where there is no group; asked for once in a script.
local delivered_until
local function last_delivered()
  local groups = delivered_until == nil and redis.pcall('XINFO', 'GROUPS', stream) or {}
  delivered_until = delivered_until or false
  for _, flat in ipairs(groups.err and {} or groups) do
    local facts = {}
    for position = 1, #flat, 2 do
      facts[flat[position]] = flat[position + 1]
    end
    delivered_until = facts.name == group and facts['last-delivered-id'] or delivered_until
  end
  return delivered_until
end

-- Whether nothing is known of an event and nobody will be given its entry: that was trimmed away before anybody got it, or it
-- ended and its end is forgotten, though the entry may be kept. So is what Redis does not write like this, or not at all.
local function is_nowhere(id)
  if redis.call('EXISTS', key('progress', id), key('done', id)) > 0 then
    return false
  end
  local delivered = redis.pcall('XPENDING', stream, group, id, id, 1)[1]
  local kept = redis.pcall('XRANGE', stream, id, id)[1]
  if delivered and delivered[1] == id then
    return false
  elseif not kept or kept[1] ~= id then
    return true
  end
  return last_delivered() and #redis.call('XRANGE', stream, '(' .. last_delivered(), id, 'COUNT', 1) == 0
end

-- Whether what stands under a request id asks for the same: `content` is the hash to keep, and others that mean it, too.
local function is_same(stands, content)
  return string.find(' ' .. content .. ' ', ' ' .. stands .. ' ', 1, true) ~= nil
end

-- From now on a request id means this event, until a day after its end.
local function claim_request(request_id, id, content, token)
  local request = key('request', request_id)
  local former = redis.call('HGET', request, 'event')
  if former then
    redis.call('HDEL', key('requests'), former)
    redis.call('DEL', request)
  end
  redis.call('HSET', request, 'event', id, 'content', string.match(content, '^%S*'), 'token', token)
  redis.call('HSET', key('requests'), id, request_id)
end

-- Whether the API ever accepted a pod of a worker.
local function was_created(id, index)
  local progress, attempt = key('progress', id), 0
  repeat
    attempt = attempt + 1
    if redis.call('HEXISTS', progress, 'a:' .. index .. ':' .. attempt) == 1 then
      return true
    end
  until redis.call('HEXISTS', progress, 't:' .. index .. ':' .. attempt) == 0
  return false
end

-- Tell the event that asked a worker to stop how that ended.
local function tell_asker(asker, id, index, outcome)
  local owner = redis.call('HGET', key('progress', asker), 'owner')
  if owner then
    redis.call('HSET', key('progress', asker), 'o:' .. id .. ':' .. index, outcome)
    if owner ~= '' then
      redis.call('SADD', key('notices', owner), asker)
    end
  end
end

-- Add news to a pipeline's, unless they were added before; `news` is {how many there were, texts}.
local function tell(id, news)
  local progress, before, texts = key('progress', id), unpack(news)
  if tonumber(redis.call('HGET', progress, 'news') or 0) ~= before then
    return
  end
  for offset, entry in ipairs(texts) do
    redis.call('XADD', key('news', id), text(before + offset) .. '-0', 'news', entry)
  end
  redis.call('HSET', progress, 'news', text(before + #texts))
end

local function forget_session(session)
  redis.call('ZREM', key('sessions'), session)
  redis.call('DEL', key('notices', session), key('tended', session), key('held', session))
  redis.call('HDEL', key('outages'), session)
end

-- Entries pending for a consumer that have no progress, at most `limit`; those that have ended are acknowledged.
local function unregistered(consumer, limit)
  local found, from = {}, '-'
  repeat
    local entries = redis.call('XPENDING', stream, group, from, '+', PAGE, consumer)
    for _, entry in ipairs(entries) do
      local id = entry[1]
      if redis.call('EXISTS', key('done', id)) == 1 then
        redis.call('XACK', stream, group, id)
      elseif redis.call('EXISTS', key('progress', id)) == 0 then
        local kept = redis.call('XRANGE', stream, id, id)[1]
        found[#found + 1] = { id, kept and kept[2] or false, entry[4] }
        if #found >= limit then
          return found
        end
      end
      from = '(' .. id
    end
  until #entries < PAGE
  return found
end
