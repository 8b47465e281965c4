"""As much of an API server as a gateway needs: one model, its pod, and a key.

The pod is what listens on PORT of the loopback; a real API server takes no such address into an EndpointSlice. Lists
never change, and watches stay open without any news.
"""

import asyncio
import sys
from base64 import b64encode
from hashlib import sha256
from typing import Any, Final

from aiohttp import web

from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, RUNTIME_PORT_NAME
from moorage_gateway.keys import KEY_LABEL

NAMESPACE: Final = "bench"
KEYS: Final = "bench-keys"
MODEL: Final = "mock"
SECRET: Final = "0123456789abcdef0123456789abcdef"  # noqa: S105 - opens a mock
KEY: Final = f"mrg_bench_{SECRET}"
"""The key that may use the model."""

_BOOKMARK_SECONDS: Final = 20.0


def objects(pod_port: int) -> dict[str, list[dict[str, Any]]]:
    """What there is, by the last part of its address."""
    slice_labels = {MANAGED_BY_LABEL: MANAGED_BY, MODEL_LABEL: MODEL}
    model = {
        "metadata": _metadata(MODEL, NAMESPACE),
        "spec": {"servedName": MODEL, "maxConcurrency": 100_000},
        "status": {},
    }
    endpoints = {
        "metadata": {**_metadata(f"{MODEL}-1", NAMESPACE), "labels": slice_labels},
        "ports": [{"name": RUNTIME_PORT_NAME, "port": pod_port}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    }
    entries = {"sha256": sha256(SECRET.encode()).hexdigest(), "models": f"{NAMESPACE}/*"}
    entries |= {"requestsPerMinute": "999999999", "tokensPerMinute": "999999999"}
    data = {name: b64encode(value.encode()).decode() for name, value in entries.items()}
    key = {"metadata": {**_metadata("key-bench", KEYS), "labels": {KEY_LABEL: "bench"}}, "data": data}
    return {"inferencemodels": [model], "endpointslices": [endpoints], "secrets": [key]}


def _metadata(name: str, namespace: str) -> dict[str, Any]:
    about = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": "1"}
    return {**about, "creationTimestamp": "2026-01-01T00:00:00Z"}


async def serve(pod_port: int) -> None:
    """Serve until killed; print the port first."""
    known = objects(pod_port)

    async def answer(request: web.Request) -> web.StreamResponse:
        found = known.get(request.path.rpartition("/")[2], [])
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": found})
        stream = web.StreamResponse()
        await stream.prepare(request)
        while True:
            await asyncio.sleep(_BOOKMARK_SECONDS)
            await stream.write(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}\n')

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
