"""The gateway: one address for all models. Requests are routed by the model that they name, and relayed byte by byte.

Data flow: client → `moorage_common.http.server` (strict HTTP) → `front` (who asks, which route and model) → `balance`
(which pod) → `exchange` → `upstream` (a kept connection to the pod), and back the same way without being framed anew.
"""
