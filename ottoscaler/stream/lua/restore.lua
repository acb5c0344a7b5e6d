-- Write dead letters whose event has none. The caller knows those up to `after`. Answers {how, id} each.
local DAY = 86400000 -- ms
local letters = key('dlq')
local is_there = {}

local from = '(' .. args.after
repeat
  local page = redis.call('XRANGE', letters, from, '+', 'COUNT', PAGE)
  for _, letter in ipairs(page) do
    for position = 1, #letter[2], 2 do
      if letter[2][position] == 'event_id' then
        is_there[letter[2][position + 1]] = true
      end
    end
    from = '(' .. letter[1]
  end
until #page < PAGE

local function is_replayed(id)
  return redis.call('EXISTS', key('replayed', id)) == 1
end

local function restore(event_id, former_id, flat)
  local done = key('done', event_id)
  local target, last_id = string.match(redis.call('GET', done) or '', '^(%a+) (.*)$')
  if is_there[event_id] then
    return { 'there', '' }
  elseif target == 'results' then
    return { 'ended', '' }
  elseif is_replayed(former_id) or (last_id and is_replayed(last_id)) then
    return { 'replayed', '' }
  end
  local id = redis.call('XADD', letters, '*', unpack(flat))
  redis.call('SET', done, 'dlq ' .. id, 'PX', DAY)
  is_there[event_id] = true
  return { 'here', id }
end

local answers = {}
for _, letter in ipairs(args.letters) do
  answers[#answers + 1] = restore(unpack(letter))
end
return answers
