-- Declare how many worker slots this session uses and wants of those that all sessions share; how many it may use. An
-- expired session may use none: others would not count what it got.
local slots, others = key('slots'), 0
local declared = redis.call('HGETALL', slots)
for position = 1, #declared, 2 do
  local session = declared[position]
  if session ~= me then
    if redis.call('ZSCORE', key('sessions'), session) then
      others = others + tonumber(declared[position + 1])
    else
      redis.call('HDEL', slots, session)
    end
  end
end
local granted = math.max(0, math.min(args.want, args.total - others))
if not redis.call('ZSCORE', key('sessions'), me) then
  granted = 0
end
redis.call('HSET', slots, me, text(math.max(args.used, granted)))
return granted
