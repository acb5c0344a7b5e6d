-- Turn dead letters into events again: the original pairs and what they replay. Answers {how, event id} each.
local DAY = 86400000 -- ms
local MOST = 3900 -- pairs: one command of a script takes just under 8,000 words
local LETTERS = 1 -- the version of dead letters
local REPLAY_OF = 'otto.replay_of'
local letters = key('dlq')

local DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
local value_of = {}
for position = 1, #DIGITS do
  value_of[string.byte(DIGITS, position)] = position - 1
end

local function from_base64(digits)
  local found = {}
  for four in string.gmatch(digits, '[%w+/][%w+/]?[%w+/]?[%w+/]?') do
    local number = 0
    for position = 1, 4 do
      number = number * 64 + (value_of[string.byte(four, position)] or 0)
    end
    local three = string.char(math.floor(number / 65536), math.floor(number / 256) % 256, number % 256)
    found[#found + 1] = string.sub(three, 1, #four - 1)
  end
  return table.concat(found)
end

local function raw(part)
  return type(part) == 'string' and part or from_base64(part.base64)
end

-- How many pairs an entry has, and those that no earlier replay noted as a flat list; an error where it is not ours.
local function pairs_of(entry)
  local flat, all = {}, cjson.decode(entry)
  for _, pair in ipairs(all) do
    local name, value = raw(pair[1]), raw(pair[2])
    if name ~= REPLAY_OF then
      flat[#flat + 1] = name
      flat[#flat + 1] = value
    end
  end
  return #all, flat
end

-- Under which request id its sender asked for it: that of a pipeline is in its text.
local function request_of(flat)
  local found = {}
  for position = 1, #flat, 2 do
    found[flat[position]] = flat[position + 1]
  end
  local is_readable, pipeline = pcall(cjson.decode, found['otto.pipeline'] or '{}')
  local pipeline_id = is_readable and type(pipeline) == 'table' and pipeline.pipeline_id
  return found['otto.request_id'] or (type(pipeline_id) == 'string' and 'pipeline:' .. pipeline_id)
end

-- From now on the request id of an event, where it has one, means its replay.
local function pass_request(former, id, flat)
  local request_id = request_of(flat)
  local stands = request_id and redis.call('HMGET', key('request', request_id), 'event', 'content') or {}
  if stands[1] == former then
    claim_request(request_id, id, stands[2], '')
  end
end

local function replay(id)
  local link = key('replayed', id)
  local event_id = redis.call('GET', link)
  if event_id then
    return { 'before', event_id }
  end
  local letter = redis.call('XRANGE', letters, id, id)[1]
  if not letter then
    return { 'missing', '' }
  end
  local fields = {}
  for position = 1, #letter[2], 2 do
    fields[letter[2][position]] = letter[2][position + 1]
  end
  if (tonumber(fields.v or LETTERS) or math.huge) > LETTERS then
    return { 'newer', '' }
  end
  local is_readable, count, flat = pcall(pairs_of, fields.entry)
  if not is_readable or not fields.event_id then
    return { 'unreadable', '' }
  elseif count == 0 then
    return { 'empty', '' }
  elseif count > MOST then
    return { 'too_many', '' }
  end
  flat[#flat + 1] = REPLAY_OF
  flat[#flat + 1] = fields.event_id
  event_id = redis.call('XADD', stream, '*', unpack(flat))
  pass_request(fields.event_id, event_id, flat)
  redis.call('SET', link, event_id, 'PX', DAY)
  redis.call('SET', key('done', fields.event_id), 'dlq ' .. id, 'PX', DAY)
  redis.call('XDEL', letters, id)
  return { 'here', event_id }
end

local answers = {}
for _, id in ipairs(args.ids) do
  answers[#answers + 1] = replay(id)
end
return answers
