"""The cluster's binaries, built from the Go module proxy: what (catalog), with which Go (gosdk), how (builder)."""
