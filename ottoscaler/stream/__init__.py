"""Boundary: Redis Streams and everything kept beside them (sessions, progress, results, dead letters)."""
