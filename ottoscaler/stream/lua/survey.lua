-- Facts on some live events: {id, task, planned, epoch, owner, settled indices, accepted indices} each.
local function facts_of(id)
  local flat, fields = redis.call('HGETALL', key('progress', id)), {}
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
  if fields.lane ~= 'work' or (args.task_id ~= '' and fields.task_id ~= args.task_id) then
    return nil
  end
  return { id, fields.task_id, fields.planned, fields.epoch, fields.owner,
    table.concat(settled, ' '), table.concat(accepted, ' ') }
end

local found = {}
for _, id in ipairs(args.ids) do
  found[#found + 1] = facts_of(id)
end
return found
