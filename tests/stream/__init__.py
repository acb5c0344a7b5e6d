"""Tests of the stream boundary."""
