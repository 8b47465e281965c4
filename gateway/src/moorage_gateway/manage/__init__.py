"""The management API: InferenceModels over REST, for consoles, SDKs and scripts. A process of its own.

It keeps nothing and may nothing: each request goes to the API server with the credential that came with it, so RBAC
decides, and Kubernetes is the only store. Data flow: client → the data plane's port → a unix socket
(`moorage_gateway.management`) → `app` → `models`, `actions`, `system` → `callers` (a client that acts for the caller) →
API server. `fields` maps the flat names of requests onto the spec, and is pure, as `gpus` and `answers` are.
"""
