"""The hypothesis profile `proof`: many more examples, and longer ones, for whoever asks for them."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "proof",
    max_examples=500,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
