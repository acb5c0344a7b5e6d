"""The trace of an event, from its producer to its workers, their logs and the result."""
