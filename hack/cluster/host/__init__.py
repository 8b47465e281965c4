"""A cluster made of processes of this host, for machines without a Docker engine.

`provider` reads from top to bottom and calls `start`: layout (where things are), addresses (which networks), pki,
control_plane and node (pure: what each process is called with), network and sysctls (what changes on the machine),
process (starts and ends them), objects in the API. `cleanup` undoes all of it, `leftovers` checks that.
"""
