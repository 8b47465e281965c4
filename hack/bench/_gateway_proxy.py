"""What one would write in an hour: a proxy on aiohttp. `python -m hack.bench._gateway_proxy PORT` passes on to PORT."""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


async def serve(pod_port: int) -> None:
    """Serve until killed; print the port first."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
    )

    async def relay(request: web.Request) -> web.StreamResponse:
        url = f"http://127.0.0.1:{pod_port}{request.path_qs}"
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with session.request(request.method, url, headers=headers, data=await request.read()) as answer:
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            if "Content-Length" in answer.headers:
                return web.Response(status=answer.status, headers=passed, body=await answer.read())
            stream = web.StreamResponse(status=answer.status, headers=passed)
            await stream.prepare(request)
            async for piece in answer.content.iter_any():
                await stream.write(piece)
            await stream.write_eof()
            return stream

    application = web.Application(client_max_size=2**24)
    application.router.add_route("*", "/{path:.*}", relay)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
