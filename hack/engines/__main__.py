"""`python -m hack.engines`."""

from hack.engines.cli import main

main()
