-- Everything pending for this session without progress: {id, fields or false, deliveries} each.
return unregistered(me, args.limit)
