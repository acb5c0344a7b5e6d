-- Note that the session has read the progress and goes on; 0 = not ours.
local id, session, epoch = unpack(args.claim)
if not is_held(id, session, epoch) then
  return 0
end
redis.call('HDEL', key('progress', id), 'trial')
local field = 'adopted:' .. epoch
if redis.call('HEXISTS', key('progress', id), field) == 0 then
  local note = string.format('{"session":%s,"at":%s}', cjson.encode(session), text(now()))
  redis.call('HSET', key('progress', id), field, note)
end
return 1
