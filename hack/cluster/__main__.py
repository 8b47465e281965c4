"""`python -m hack.cluster`."""

from hack.cluster.cli import main

main()
