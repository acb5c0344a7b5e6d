"""The boundary to Kubernetes: the Pod API over httpx, which is imported nowhere else.

How to get in is `access`, `kubeconfig`, `credentials` and `exec_plugin`; what to ask is `requests` (pure); asking is
`client`, with every foreign error turned into one of ours in `answers`; one list+watch that feeds the fleet is `watch`;
what a worker pod looks like is `manifest`, on top of what `templates` read (both pure once loaded).
"""
