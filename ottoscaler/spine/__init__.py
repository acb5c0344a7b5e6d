"""An event's way from the stream to its result, and the rings of tasks it runs in.

In flow order: `poller` reads and `taker` takes over, `handler` gives each event a nursery, `scaling` runs an event's
workers, `creation` makes a pod, `worker` follows it to its end, `diagnosis` says what is wrong with it, `cleanup`
deletes it once its end is recorded, `ledger` keeps what happened in Redis. `scaledown` and `cancelling` are the way
back. `rings` shows how all of it is supervised; `site` is what every part shares.
"""
