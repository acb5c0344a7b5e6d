"""Pipelines: stages that depend on each other, each an event of its own, held and followed as one event."""
