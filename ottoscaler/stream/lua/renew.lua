-- Keep a session for another lease; writes nothing where the era is another one. Answers {existed, held, era stands}.
if redis.call('HGET', key('era'), 'id') ~= args.era then
  return { 0, 0, 0 }
end
local existed = redis.call('ZSCORE', key('sessions'), me)
redis.call('ZADD', key('sessions'), now() + args.lease, me)
return { existed and 1 or 0, redis.call('SCARD', key('held', me)), 1 }
