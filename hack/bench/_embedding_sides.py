"""The rivals inside the environment of transformers, one process each: `_embedding_sides.py naive|offline FOLDER`.

naive is an HTTP server that computes each request by itself, as it comes; offline has no HTTP: it reads lists of texts,
one a line, and writes how many seconds `encode()` took for each list.
"""

import asyncio
import base64
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from moorage_common.http.connections import Connections
from moorage_common.http.message import Limits, Request, json_answer
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection

THREADS = 2


def offline(model: Any) -> None:
    """Encode each list that comes, sorted by length inside batches of 32, as the library does by itself."""
    print("ready", flush=True)
    for line in sys.stdin:
        texts = json.loads(line)
        begun = time.perf_counter()
        model.encode(texts, batch_size=32)
        print(time.perf_counter() - begun, flush=True)


async def naive(model: Any) -> None:
    """Serve, one text at a time in one thread, without anything in front."""
    thread, loop = ThreadPoolExecutor(1), asyncio.get_running_loop()

    async def handle(request: Request, responder: Responder) -> None:
        text = json.loads(request.body)["input"]
        vector = (await loop.run_in_executor(thread, lambda: model.encode([text])))[0]
        item = {"object": "embedding", "index": 0, "embedding": base64.b64encode(vector.tobytes()).decode()}
        responder.send(json_answer(200, {"object": "list", "data": [item]}))

    connections = Connections()
    server = await loop.create_server(
        lambda: ServerConnection(handle, limits=Limits(), connections=connections, is_draining=lambda: False),
        "127.0.0.1",
        0,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(kind: str, folder: str) -> None:
    """Load the model and do one of the two."""
    torch.set_num_threads(THREADS)
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    model.encode(["warm"])
    if kind == "offline":
        offline(model)
    else:
        asyncio.run(naive(model))


if __name__ == "__main__":
    main(*sys.argv[1:3])
