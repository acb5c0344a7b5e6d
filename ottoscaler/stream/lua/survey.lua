-- Facts on the first of some live events, as many as one call can look at while others wait: {how many, facts}, facts
-- being {id, task, planned, epoch, owner, settled indices, accepted indices} each.
local MOST = 20000 -- names and values read; the event that reaches it is the last
local read = 0

local function facts_of(id)
  local of = redis.call('HMGET', key('progress', id), 'lane', 'task_id', 'v')
  if of[1] ~= 'work' or is_newer(of[3]) or (args.task_id ~= '' and of[2] ~= args.task_id) then
    return nil
  end
  local flat, fields = redis.call('HGETALL', key('progress', id)), {}
  read = read + #flat
  local settled, accepted = {}, {}
  for position = 1, #flat, 2 do
    local name = flat[position]
    fields[name] = flat[position + 1]
    settled[#settled + 1] = string.match(name, '^[os]:(%d+)$')
  end
  for name in pairs(fields) do
    local index, attempt = string.match(name, '^a:(%d+):(%d+)$')
    if index and not fields['t:' .. index .. ':' .. attempt] then
      accepted[#accepted + 1] = index
    end
  end
  return { id, fields.task_id, fields.planned, fields.epoch, fields.owner,
    table.concat(settled, ' '), table.concat(accepted, ' ') }
end

local found, looked_at = {}, 0
for _, id in ipairs(args.ids) do
  found[#found + 1] = facts_of(id)
  looked_at = looked_at + 1
  if read >= MOST then
    break
  end
end
return { looked_at, found }
