"""`python -m hack.node`: installs Node and OpenAI's client for it where they are not yet; prints the folder."""

import sys

from hack.node import NodeError, installed
from hack.uv import UvMissing

try:
    print(installed())
except (NodeError, UvMissing) as error:
    print(error, file=sys.stderr)
    sys.exit(1)
