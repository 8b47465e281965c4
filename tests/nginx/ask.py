"""`python -m tests.nginx.ask`: ask the real nginx what it makes of the odd requests, and write that down.

`make test` compares the gateway with what is written, so that it needs no nginx; `make fuzz` asks nginx again.
"""

import asyncio
import json
import tempfile
from pathlib import Path

from tests.nginx.server import nginx, version
from tests.unit.gateway.odd_requests import STREAMS
from tests.unit.gateway.strict_servers import NGINX, Seen


async def ask_all() -> dict[str, list[Seen]]:
    """What nginx takes of each stream."""
    with tempfile.TemporaryDirectory() as folder:
        async with nginx(Path(folder)) as server:
            return {name: await server.ask(content) for name, content in STREAMS.items()}


def main() -> None:
    """Write the file."""
    told = asyncio.run(ask_all())
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps([(*one[:2], one.body.decode('latin-1')) for one in requests])}"
        for name, requests in told.items()
    )
    NGINX.write_text(f'{{\n "nginx": "{version()}",\n "seen": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
