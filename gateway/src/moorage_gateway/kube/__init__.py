"""Talks to the API server: a thin client and a watch of the gateway's own (docs/architecture.md says why not kopf).

`credentials` says where the server is and who we are, `client.Kube` makes the requests, `resources` has the kinds,
`errors` what can go wrong, `watch` follows kinds for a `Sink`, and `watch_health` knows how each watch is.
"""
