"""Talks to the API server as a part of ours does: get, list, watch, create, replace and server-side apply.

`credentials` says where the server is and who we are, `client.Kube` makes the requests, `resources` has the kinds,
`errors` what can go wrong, and `watch` follows kinds for a `Sink`. Needs the extra `kube`, which the runtime
goes without.
"""
