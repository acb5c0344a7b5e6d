-- Write how far logs are done with: rows of claim, field and text. Per row whether the event is ours.
local written = {}
for position, row in ipairs(args.marks) do
  local claim, field, mark = unpack(row)
  written[position] = is_held(unpack(claim)) and 1 or 0
  if written[position] == 1 then
    redis.call('HSET', key('progress', claim[1]), field, mark)
  end
end
return written
