"""What a call does: the event it puts on the stream, the wait for what becomes of it, and the answer."""
