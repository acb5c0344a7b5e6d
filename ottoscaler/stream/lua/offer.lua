-- Hand events over; what is not ours any more is left alone.
for _, handed in ipairs(args.events) do
  local id, session, epoch, clean = unpack(handed)
  if is_held(id, session, epoch) then
    if clean then
      redis.call('HSET', key('progress', id), 'clean', '1')
    else
      redis.call('HDEL', key('progress', id), 'clean')
    end
    if args.failed then
      redis.call('HINCRBY', key('progress', id), 'failures', 1)
    end
    redis.call('HDEL', key('progress', id), 'trial')
    redis.call('SREM', key('held', session), id)
    make_offered(id, now() + args.delay)
  end
end
return 1
