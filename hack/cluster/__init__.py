"""Local Kubernetes clusters for the demo and the tests, with one command and without touching the user's own.

    python -m hack.cluster up [--gpus 8] [--control-plane-only] [--name NAME] [--provider auto|host|kind]
    python -m hack.cluster down | status | kubeconfig | load-image ARCHIVE... | build | doctor

`kind` where a Docker engine answers; elsewhere `host`: the control plane and, unless --control-plane-only, a real node
as processes of this machine. Binaries are compiled once from the Go module proxy into $XDG_CACHE_HOME/moorage/bin; a
cluster's keys, logs and data are in $XDG_STATE_HOME/moorage/clusters/NAME. From Python: `hack.cluster.api`.

cli > api > providers > host | kind > toolchain; `doctor` says what a machine lacks, before anything is started.
"""
