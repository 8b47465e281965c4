"""Requests to the API server and to pods, the Lease, Events; `cache` has what is watched and kept in memory."""
