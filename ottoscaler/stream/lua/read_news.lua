-- What pipelines told beyond the number of news that is known: {texts, 1 where there will be no more} each.
local NEWS = 100 -- of one pipeline in one answer
local answers = {}
for position, wanted in ipairs(args.wanted) do
  local id, known = unpack(wanted)
  local texts = {}
  for number, entry in ipairs(redis.call('XRANGE', key('news', id), '(' .. known .. '-0', '+', 'COUNT', NEWS)) do
    texts[number] = entry[2][2]
  end
  local is_over = #texts < NEWS and (redis.call('EXISTS', key('done', id)) == 1 or is_nowhere(id))
  answers[position] = { texts, is_over and 1 or 0 }
end
return answers
