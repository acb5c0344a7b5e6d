-- How events stand, in order: a list of fields for a live one, how it ended, 0 = not registered yet, -1 = nowhere.
local standings = {}
for position, id in ipairs(args.ids) do
  local fields = redis.call('HMGET', key('progress', id), 'planned', 'created', 'not_created', 'ended', 'trouble',
    'task_id', 'retried')
  if fields[1] then
    standings[position] = fields
  else
    standings[position] = redis.call('GET', key('done', id)) or (is_nowhere(id) and -1 or 0)
  end
end
return standings
