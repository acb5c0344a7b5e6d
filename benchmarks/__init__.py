"""Benchmarks: a real `ottoscaler serve` over a real Valkey and the local cluster, measured from outside.

`python -m benchmarks [NAME...] [--quick]` prints each benchmark's figures beside its aims and writes them to
`build/bench/NAME.json`. The map:

- one replica: `latency`, `throughput`, `cost`, `idle`, `holding`, `large_event`, `adoption`, `leaving`
- its doors: `scale_up`, `calls` (`calling` is their client)
- logs: `logs`, `loud` (`counting_handler` and `forwarding`: who is told; `busy`: others that use the cores)
- several: `takeover`, `handover`, `replicas`, `rollout`, and `crew`, the running replicas that these share
- `arena`: the running programs, and how events are sent and results awaited
- `observed_cluster`, `records`: the local cluster as a program that notes when requests arrive and pods run
- `meter`: CPU and memory of the programs, and what was the limit
- `bare`: creating the same pods without us
- `figures`, `report`: a measured number beside its aim; tables and files
"""
