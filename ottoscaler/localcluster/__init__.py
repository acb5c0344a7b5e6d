"""A small, honest stand-in for a Kubernetes API server and its one node, in one process on Trio.

The map: `store` is the state that both halves share. Above it stands the API half (`server` and `routes`
speak HTTPS; `pods_api`, `watching`, `patch`, `selectors`, `validation`, `defaults`, `access`, `admission`,
`tables` and `discovery` each answer for one part of the API's behaviour), below it the kubelet half
(`kubelet`, `scheduler`, `process`, `simulated`, `logs`), which runs pods as local processes.
`cluster.open_cluster` starts the whole.

What it does not do: `managedFields` and the ownership of fields (apply merges, it takes nothing away); protobuf but for
what kubectl insists on; exec, attach, port-forward; controllers (Jobs, Deployments), RBAC objects (a Role is given to
`access` instead), client certificates; schemas in OpenAPI (`kubectl explain`); keeping objects over a restart. The
comparison with the recordings lists every exchange whose answer differs.

It imports nothing else of the project: two independent readings of one API, tied together by recordings.
"""
