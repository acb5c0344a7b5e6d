"""Ottoscaler: an event becomes running Kubernetes worker pods, each followed to its end, none lost, none repeated."""

__version__ = "0.1.0"
