-- What people see of an installation: {sessions as {name, ms until it expires, events held, outages}, number of dead
-- letters, the last of them as {id, name, value ...}, facts on the events asked for, as many of those as are live}.
local TYPES = { work = 'scale_up', pipelines = 'pipeline' }
local LETTER = { event_id = true, cause = true, reason = true, failed_at = true }
local time = now()

local function sessions()
  local found, flat = {}, redis.call('ZRANGEBYSCORE', key('sessions'), '-inf', '+inf', 'WITHSCORES')
  for position = 1, #flat, 2 do
    local session = flat[position]
    found[#found + 1] = { session, tonumber(flat[position + 1]) - time, redis.call('SCARD', key('held', session)),
      redis.call('HGET', key('outages'), session) or '' }
  end
  return found
end

local function last_letters()
  local found = {}
  for _, letter in ipairs(redis.call('XREVRANGE', key('dlq'), '+', '-', 'COUNT', args.letters)) do
    local short = { letter[1] }
    for position = 1, #letter[2], 2 do
      if LETTER[letter[2][position]] then
        short[#short + 1] = letter[2][position]
        short[#short + 1] = letter[2][position + 1]
      end
    end
    found[#found + 1] = short
  end
  return found
end

local function type_of(lane, entry, v)
  if is_newer(v) then
    return ''
  end
  for _, pair in ipairs(TYPES[lane] and {} or cjson.decode(entry)) do
    if pair[1] == 'type' then
      return pair[2]
    end
  end
  return TYPES[lane] or ''
end

local function facts_of(id)
  local progress = key('progress', id)
  local of = redis.call('HMGET', progress, 'lane', 'owner', 'task_id', 'planned', 'created', 'ended', 'trouble', 'v')
  if not of[1] then
    return nil
  end
  local entry = TYPES[of[1]] and '' or redis.call('HGET', progress, 'entry')
  return { id, type_of(of[1], entry, of[8]), of[2], of[3] or '', of[4] or '0', of[5] or '0', of[6] or '0', of[7] or '',
    redis.call('HGET', key('requests'), id) or '' }
end

local facts = {}
for _, id in ipairs(args.ids) do
  facts[#facts + 1] = facts_of(id)
end
return { sessions(), redis.call('XLEN', key('dlq')), last_letters(), facts }
