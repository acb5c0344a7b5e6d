"""The suite: one folder per room, one promise per test."""
