-- End this session: forgotten where nothing is left of it, else expired at once.
local delivered = redis.pcall('XPENDING', stream, group, '-', '+', 1, me)
if redis.call('SCARD', key('held', me)) > 0 or (not delivered.err and #delivered > 0) then
  redis.call('ZADD', key('sessions'), 0, me)
else
  forget_session(me)
end
return 1
