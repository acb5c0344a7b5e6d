"""The client for worker images."""
