"""`moorage-runtime fetch`: downloads a model's files into a folder, then ends; it imports no engine.

Flow: `settings` → `source` (what the address means) → `hub`, `web` or `bucket` (what is there) → `plan` (what of it is
fetched, pure) → `transfer` (one file: stream, hash, resume, rename), several at once in `run` → a marker in `folder`.
`command` is the process around it: log, progress over HTTP, signals, and the reason for a failure.
"""
