-- End an event: its one entry, acknowledged, progress removed, remembered for a day. Answers {how, entry id}.
local DAY = 86400000 -- ms
local TRIMMED = 100 -- results removed by one close
local id, done = args.id, key('done', args.id)

local function is_ours()
  if args.claim then
    return is_held(unpack(args.claim))
  end
  return redis.call('EXISTS', key('progress', id)) == 0 and pending(id) ~= nil
end

local function size_of(flat)
  local size = 0
  for _, part in ipairs(flat) do
    size = size + #part
  end
  return size
end

-- Drop the oldest results beyond the limits; what others removed since is taken to have been of average size.
local function trim_results(before, added)
  local results, kept = key('results'), key('results', 'kept')
  local counted = redis.call('HMGET', kept, 'entries', 'bytes')
  local entries, size = tonumber(counted[1] or 0), tonumber(counted[2] or 0)
  size = (entries > 0 and math.floor(size * before / entries) or 0) + added
  local length = before + 1
  for _ = 1, TRIMMED do
    if length == 1 or (length <= args.results_keep and size <= args.results_max_bytes) then
      break
    end
    local oldest = redis.call('XRANGE', results, '-', '+', 'COUNT', 1)[1]
    redis.call('XDEL', results, oldest[1])
    size = size - size_of(oldest[2])
    length = length - 1
  end
  redis.call('HSET', kept, 'entries', text(length), 'bytes', text(size))
end

local function is_at_or_before(first, second)
  local a, b = string.match(first, '^(%d+)-(%d+)$')
  local c, d = string.match(second, '^(%d+)-(%d+)$')
  if a ~= c then
    return tonumber(a) < tonumber(c)
  end
  return tonumber(b) <= tonumber(d)
end

-- Whether the entry may leave the event stream: no group has still to read it, none has it pending.
local function is_needed_no_more()
  local groups = args.trim ~= 'off' and redis.pcall('XINFO', 'GROUPS', stream) or { err = 'not asked' }
  if groups.err or (args.trim == 'auto' and #groups ~= 1) then
    return false
  end
  for _, flat in ipairs(groups) do
    local facts = {}
    for position = 1, #flat, 2 do
      facts[flat[position]] = flat[position + 1]
    end
    if not is_at_or_before(id, facts['last-delivered-id']) or pending(id, facts.name) then
      return false
    end
  end
  return true
end

-- Indices of the workers whose pod the API never accepted, as JSON; false where there are none.
local function list_not_created()
  local progress, found = key('progress', id), {}
  local counted = redis.call('HMGET', progress, 'planned', 'not_created')
  if not counted[2] then
    return false
  end
  local planned = tonumber(counted[1])
  for first = 1, planned, PAGE do
    local fields = {}
    for index = first, math.min(first + PAGE - 1, planned) do
      fields[#fields + 1] = 'a:' .. index .. ':1'
    end
    for offset, accepted in ipairs(redis.call('HMGET', progress, unpack(fields))) do
      if not accepted and not was_created(id, first + offset - 1) then
        found[#found + 1] = first + offset - 1
      end
    end
  end
  return list_text(found)
end

-- Who waits for a worker of it to stop is told how all of it ended.
local function tell_waiting()
  local flat, fields = redis.call('HGETALL', key('progress', id)), {}
  for position = 1, #flat, 2 do
    fields[flat[position]] = flat[position + 1]
  end
  for name, mark in pairs(fields) do
    local index = string.match(name, '^s:(%d+)$')
    if index and not fields['o:' .. index] then
      tell_asker(cjson.decode(mark).by, id, index, args.ended)
    end
  end
end

-- Its request id is kept for another day, no longer than what says how it ended.
local function end_request(planned, not_created)
  local request_id = redis.call('HGET', key('requests'), id)
  if not request_id then
    return
  end
  redis.call('HDEL', key('requests'), id)
  if planned then
    redis.call('HSET', key('request', request_id), 'planned', planned, 'not_created', not_created or '[]')
  end
  if args.kept then
    redis.call('HSET', key('request', request_id), 'kept', args.kept)
  end
  redis.call('PEXPIRE', key('request', request_id), DAY)
end

local ending = redis.call('GET', done)
if ending then
  redis.call('XACK', stream, group, id) -- delivered again by a group that begins anew
  return { 'before', string.match(ending, ' (.*)$') }
end
if not is_ours() then
  return { 'lost', '' }
end
-- The entry first: where it cannot be written nothing else has changed.
local target = key(args.target)
local before = redis.call('XLEN', target)
local planned, told = unpack(redis.call('HMGET', key('progress', id), 'planned', 'news'))
local not_created = list_not_created()
if not_created and args.target == 'results' then
  args.pairs[#args.pairs + 1] = 'not_created'
  args.pairs[#args.pairs + 1] = not_created
end
local entry_id = redis.call('XADD', target, '*', unpack(args.pairs))
if args.claim then
  if args.ended and tonumber(redis.call('HGET', key('progress', id), 'stopping') or 0) > 0 then
    tell_waiting()
  end
  redis.call('DEL', key('progress', id))
  redis.call('ZREM', key('live'), id)
  redis.call('SREM', key('held', args.claim[2]), id)
end
if args.target == 'results' then
  trim_results(before, size_of(args.pairs))
end
end_request(planned, not_created)
if told then
  redis.call('PEXPIRE', key('news', id), DAY)
end
redis.call('SET', done, args.target .. ' ' .. entry_id, 'PX', DAY)
redis.call('XACK', stream, group, id)
for _, fence in ipairs(args.fences) do
  redis.call('ZADD', key('fences'), text(now() + fence[2]), fence[1])
end
if is_needed_no_more() then
  redis.call('XDEL', stream, id)
end
return { 'here', entry_id }
