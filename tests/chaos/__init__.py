"""Chaos: seeded harm to whole scalers, judged by what the workers did and by what stands in the streams."""
