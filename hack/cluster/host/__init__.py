"""A cluster made of processes of this host, for machines without a Docker engine.

`provider` reads from top to bottom and calls `start`: layout (where things are), pki, control_plane and node (pure:
what each process is called with), process (starts and ends them), objects in the API. `cleanup` undoes all of it,
`leftovers` checks that.
"""
