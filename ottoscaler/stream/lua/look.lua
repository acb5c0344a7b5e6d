-- How events stand, in order: a list of fields for a live one, how it ended, 0 = nothing is known yet (not registered,
-- or a newer version's), -1 = nowhere.
local standings = {}
for position, id in ipairs(args.ids) do
  local fields = redis.call('HMGET', key('progress', id), 'planned', 'created', 'not_created', 'ended', 'trouble',
    'task_id', 'retried', 'v')
  local version = table.remove(fields, 8)
  if fields[1] and not is_newer(version) then
    standings[position] = fields
  else
    standings[position] = redis.call('GET', key('done', id)) or (is_nowhere(id) and -1 or 0)
  end
end
return standings
