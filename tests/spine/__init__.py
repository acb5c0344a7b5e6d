"""Tests of the spine: from the entry on the stream to the result."""
