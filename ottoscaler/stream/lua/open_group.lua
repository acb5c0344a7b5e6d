-- Create the group (with the stream) and the era where they are missing; answers the era.
local made = redis.pcall('XGROUP', 'CREATE', stream, group, args.start, 'MKSTREAM')
if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
  return made
end
if redis.call('EXISTS', key('era')) == 0 then
  redis.call('HSET', key('era'), 'id', args.era, 'namespace', args.namespace, 'created', text(now()))
end
return redis.call('HMGET', key('era'), 'id', 'namespace', 'created')
