"""Tests of calls: what becomes of them on the stream, and what is answered."""
