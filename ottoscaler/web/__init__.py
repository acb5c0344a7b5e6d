"""The HTTP door: metrics and probes. `server` speaks HTTP, `pages` says what is answered."""
