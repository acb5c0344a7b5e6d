-- Append an event once per token; answers its entry id.
local HOUR = 3600000 -- ms
local token = key('token', args.token)
local entry_id = redis.call('GET', token)
if not entry_id then
  entry_id = redis.call('XADD', stream, '*', unpack(args.pairs))
  redis.call('SET', token, entry_id, 'PX', HOUR)
end
return entry_id
