"""The proof with real processes: `serve`, Valkey and the local cluster."""
