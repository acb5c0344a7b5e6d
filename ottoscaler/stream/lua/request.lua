-- Add an event once per request id. Answers {how, event id}: new, known = the same was asked before, other = something
-- else was.
local request = key('request', args.request_id)
local stands = redis.call('HMGET', request, 'event', 'content', 'token')
if stands[1] and not is_nowhere(stands[1]) then
  if not is_same(stands[2], args.content) then
    return { 'other', stands[1] }
  end
  return { stands[3] == args.token and 'new' or 'known', stands[1] }
end
local entry_id = redis.call('XADD', stream, '*', unpack(args.pairs))
claim_request(args.request_id, entry_id, args.content, args.token)
return { 'new', entry_id }
