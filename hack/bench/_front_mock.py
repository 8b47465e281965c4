"""The runtime's front without its engine: `python -m hack.bench._front_mock PORT` relays to what listens there."""

import asyncio
import sys

import uvloop

from moorage_common.facts import EngineFacts, Phase
from moorage_common.http.client import Pool
from moorage_runtime.engines.base import LOOPBACK, Plan
from moorage_runtime.server import Server
from moorage_runtime.settings import Backend, Settings

MODEL = "mock"


async def front(port: int) -> int:
    """Serve until killed; print the port first."""
    server = Server(
        Settings(model_backend=Backend.DUMMY, host=LOOPBACK, port=0, max_concurrent_requests=1024, log_level="ERROR")
    )
    supervisor = server.service.supervisor

    async def pretend() -> None:
        supervisor.plan = Plan(
            served_name=MODEL,
            facts=EngineFacts(engine=MODEL),
            config=b"",
            smoke_path="",
            smoke_body=b"",
            probe_path="",
            routes=frozenset({"/v1/completions"}),
        )
        supervisor.backend = Pool(LOOPBACK, port, keep=1024)
        supervisor.phase = Phase.READY
        await asyncio.Event().wait()

    supervisor.run = pretend  # type: ignore[method-assign]
    serving = asyncio.create_task(server.run())
    await server.listening.wait()
    print(server.port, flush=True)
    return await serving


if __name__ == "__main__":
    sys.exit(uvloop.run(front(int(sys.argv[1]))))
