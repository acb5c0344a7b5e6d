"""Long proofs that replay from a seed: the watch under a million steps of trouble, and a model of the whole scaler."""
