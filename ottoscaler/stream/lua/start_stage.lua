-- Add the event of a pipeline's stage, once; its id, '' = the stage has ended or is to be stopped, false = not ours.
local id, index = args.claim[1], args.index
if not is_held(unpack(args.claim)) then
  return false
end
local progress, field = key('progress', id), 'a:' .. index .. ':1'
local stands = redis.call('HMGET', progress, field, 's:' .. index, 'o:' .. index, 'started')
if stands[1] then
  return cjson.decode(stands[1]).uid
end
if stands[2] or stands[3] then
  return ''
end
local entry_id, time = redis.call('XADD', stream, '*', unpack(args.pairs)), text(now())
redis.call('HDEL', progress, 'trial')
redis.call('HSET', progress, field, '{"uid":"' .. entry_id .. '","at":' .. time .. '}', 'started', stands[4] or time)
redis.call('HINCRBY', progress, 'created', 1)
tell(id, args.news)
return entry_id
