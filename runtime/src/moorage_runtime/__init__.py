"""The runtime: one HTTP API in front of an engine in a child process."""
