"""`python -m hack.images`."""

from hack.images.cli import main

main()
