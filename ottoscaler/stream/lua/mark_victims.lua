-- Choose victims in order and mark them; the list so far as JSON, 0 = not ours.
local asker = args.claim[1]
if not is_held(unpack(args.claim)) then
  return 0
end
local own = key('progress', asker)
local stands = redis.call('HMGET', own, 'victims', 'chosen')
if stands[2] == '1' then
  return stands[1]
end
local victims = cjson.decode(stands[1] or '[]')

local function wait_for_no_scaling(id)
  local lane = redis.call('HGET', key('progress', id), 'lane')
  local due = redis.call('ZSCORE', key('offered', lane), id)
  if due then
    redis.call('ZREM', key('offered', lane), id)
    redis.call('ZADD', key('offered', 'control'), due, id)
  end
end

local function is_settled(progress, planned)
  for index = 1, planned do
    if redis.call('HEXISTS', progress, 'o:' .. index) == 0 then
      return false
    end
  end
  return true
end

local function mark(id, index, outcome)
  local progress = key('progress', id)
  local fields = redis.call('HMGET', progress, 'owner', 'epoch', 'planned', 'o:' .. index, 's:' .. index, 'v')
  if not fields[1] or fields[4] or fields[5] or is_newer(fields[6]) then
    return false
  end
  if fields[2] == '0' then
    redis.call('HSET', progress, 'o:' .. index, outcome)
    redis.call('HINCRBY', progress, 'ended', 1)
    redis.call('HINCRBY', progress, 'not_created', 1)
    redis.call('HSET', own, 'o:' .. id .. ':' .. index, outcome)
    if is_settled(progress, tonumber(fields[3])) then
      wait_for_no_scaling(id)
    end
    return true
  end
  redis.call('HSET', progress, 's:' .. index, '{"by":"' .. asker .. '","cause":"' .. args.cause .. '"}')
  redis.call('HINCRBY', progress, 'stopping', 1)
  if fields[1] == '' then
    wait_for_no_scaling(id)
  else
    redis.call('SADD', key('notices', fields[1]), id)
  end
  return true
end

local was_chosen = {}
for _, victim in ipairs(victims) do
  was_chosen[victim[1] .. ':' .. victim[2]] = true
end

for _, candidate in ipairs(args.candidates) do
  if #victims >= args.wanted then
    break
  end
  if mark(unpack(candidate)) then
    victims[#victims + 1] = { candidate[1], candidate[2] }
  elseif args.passed_count and not was_chosen[candidate[1] .. ':' .. candidate[2]] then
    args.wanted = args.wanted - 1
  end
end
redis.call('HSET', own, 'victims', list_text(victims))
if args.last or #victims >= args.wanted then
  redis.call('HSET', own, 'chosen', '1')
end
return list_text(victims)
