"""Tests of worker logs."""
