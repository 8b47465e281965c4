"""The cluster as the operator sees it and talks to it: store and view, the Lease, Events, what pods report."""
