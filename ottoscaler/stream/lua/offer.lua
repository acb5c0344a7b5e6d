-- Hand events over; what is not ours any more is left alone.
for _, handed in ipairs(args.events) do
  local id, session, epoch, clean = unpack(handed)
  if is_held(id, session, epoch) then
    if clean then
      redis.call('HSET', key('progress', id), 'clean', '1')
    else
      redis.call('HDEL', key('progress', id), 'clean')
    end
    redis.call('SREM', key('held', session), id)
    make_offered(id, now() + args.delay)
  end
end
return 1
