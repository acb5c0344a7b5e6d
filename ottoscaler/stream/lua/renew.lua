-- Keep a session for another lease, with what it tells of outages; writes nothing where the era is another one. Answers
-- {existed, held, era stands}.
if redis.call('HGET', key('era'), 'id') ~= args.era then
  return { 0, 0, 0 }
end
local existed = redis.call('ZSCORE', key('sessions'), me)
redis.call('ZADD', key('sessions'), now() + args.lease, me)
if args.outages == '' then
  redis.call('HDEL', key('outages'), me)
elseif redis.call('HGET', key('outages'), me) ~= args.outages then
  redis.call('HSET', key('outages'), me, args.outages)
end
return { existed and 1 or 0, redis.call('SCARD', key('held', me)), 1 }
