"""The Kubernetes boundary."""
