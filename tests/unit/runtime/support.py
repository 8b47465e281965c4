"""A runtime with the dummy engine, in this process and on a free port, and GGUF files made by hand."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from moorage_common.facts import Phase
from moorage_common.http.message import Limits
from moorage_runtime.server import Server
from moorage_runtime.settings import Backend, Settings
from moorage_runtime.supervise import SupervisionPolicy
from moorage_runtime.watchdog import WatchdogPolicy

DEADLINE = 20.0

QUICK = SupervisionPolicy(
    backoff=(0.01,),
    watchdog=WatchdogPolicy(tick=0.05, silence=0.3, confirm=0.2, probe_timeout=0.5),
)


async def until(true: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@dataclass
class Running:
    """A runtime that runs, and a client to it."""

    server: Server
    client: httpx.AsyncClient
    task: "asyncio.Task[int]"

    @property
    def phase(self) -> Phase:
        """Where it is on its way."""
        return self.server.service.phase

    async def ready(self) -> None:
        """Wait until it answers."""
        await until(lambda: self.phase is Phase.READY or self.task.done())
        assert not self.task.done()

    async def chat(self, prompt: str, **fields: Any) -> httpx.Response:
        """Send a chat request."""
        return await self.client.post("/v1/chat/completions", json=chat(prompt, **fields))

    @asynccontextmanager
    async def streaming(self, prompt: str, **fields: Any) -> AsyncIterator[AsyncIterator[str]]:
        """Open a streamed chat and give its lines."""
        async with self.client.stream(
            "POST", "/v1/chat/completions", json=chat(prompt, stream=True, **fields)
        ) as response:
            assert response.status_code == 200, await response.aread()
            yield response.aiter_lines()


def chat(prompt: str, **fields: Any) -> dict[str, Any]:
    """Write the body of a chat request."""
    return {"model": "dummy", "messages": [{"role": "user", "content": prompt}], **fields}


@asynccontextmanager
async def running(
    *,
    model: dict[str, Any] | None = None,
    folder: Path | None = None,
    policy: SupervisionPolicy = QUICK,
    limits: Limits | None = None,
    ready: bool = True,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Run a runtime with the dummy engine; `model` becomes the file that stands in for one."""
    if model is not None:
        assert folder is not None
        settings["model_path"] = folder / "model.json"
        settings["model_path"].write_text(json.dumps(model))
    values = {"model_backend": Backend.DUMMY, "host": "127.0.0.1", "port": 0, "drain_timeout": 5.0, **settings}
    server = Server(Settings(**values), policy=policy, limits=limits)
    task = asyncio.create_task(server.run())
    await until(lambda: server.listening.is_set() or task.done())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=DEADLINE) as client:
        runtime = Running(server, client, task)
        try:
            if ready:
                await runtime.ready()
            yield runtime
        finally:
            if not task.done():
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def events(lines: Sequence[str]) -> list[Any]:
    """Decode the events of a stream; `[DONE]` stays a string."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [text if text == "[DONE]" else json.loads(text) for text in data]


# -- GGUF --------------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    """Write a string as GGUF does."""
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def entry(key: str, kind: int, payload: bytes) -> bytes:
    """Write an entry of the header."""
    return text(key) + struct.pack("<I", kind) + payload


def string(key: str, value: str) -> bytes:
    """Write an entry that is a string."""
    return entry(key, 8, text(value))


def number(key: str, value: int) -> bytes:
    """Write an entry that is a whole number."""
    return entry(key, 4, struct.pack("<I", value))


def array(key: str, kind: int, items: Sequence[bytes], count: int | None = None) -> bytes:
    """Write an entry that is an array; `count` may lie."""
    return entry(key, 9, struct.pack("<IQ", kind, len(items) if count is None else count) + b"".join(items))


def tensor(name: str, shape: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    """Write what the header says of a tensor."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


LLAMA = (
    string("general.architecture", "llama"),
    number("general.file_type", 15),
    number("llama.context_length", 2048),
    number("llama.block_count", 2),
    number("llama.embedding_length", 64),
    number("llama.attention.head_count", 4),
    number("llama.attention.head_count_kv", 2),
)


def gguf(
    entries: Sequence[bytes] = LLAMA,
    tensors: Sequence[bytes] = (tensor("t", [32, 2]),),
    *,
    data: int = 256,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """Write a GGUF file: header, padding to 32 bytes, and `data` bytes of zeros."""
    tensor_count, entry_count = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, tensor_count, entry_count) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)
