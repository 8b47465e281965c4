"""Child side of the engine `vllm`: vLLM's own OpenAI server on loopback, one probe more, and facts from its workers."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from moorage_common.facts import CPU, LoadError
from moorage_runtime.engines.base import LOOPBACK, Announce, Announcement
from moorage_runtime.engines.vllm import PROBE, TOO_LONG
from moorage_runtime.errors import LoadFailure

if TYPE_CHECKING:
    from moorage_runtime.engines.vllm import ChildConfig

LOOK_EVERY: Final = 0.2

PLAIN: Final = frozenset({"UnquantizedLinearMethod", "UnquantizedEmbeddingMethod", "UnquantizedFusedMoEMethod"})
"""vLLM's ways to multiply with weights that are not quantized."""

WORDS: Final[Mapping[str, str]] = {
    "auto_awq": "awq",
    "auto_gptq": "gptq",
    "awq_marlin": "awq",
    "fbgemm_fp8": "fp8",
    "fp8_per_block": "fp8",
    "fp8_per_channel": "fp8",
    "fp8_per_tensor": "fp8",
    "gptq_marlin": "gptq",
}
"""The words of spec.quantization for vLLM's."""


def preload() -> None:
    """Import what takes time."""
    import vllm.entrypoints.launchers.api_server.entry
    import vllm.v1.engine.async_llm  # noqa: F401


def serve(wanted: ChildConfig, announce: Announce) -> None:
    """Load the model and serve until the engine dies."""
    if wanted.threads is not None:
        # Bound to cores by number, all pods of a node would take the same ones.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_NUM_THREADS", str(wanted.threads))
    import uvloop

    uvloop.run(_serve(parse(wanted.arguments), announce))


def parse(arguments: Iterable[str]) -> Any:
    """Parse a command line by vLLM's own parser."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    try:
        args = make_arg_parser(FlexibleArgumentParser()).parse_args(list(arguments))
    except SystemExit as error:
        message = "vLLM does not understand its options; its log says which"
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, message) from error
    validate_parsed_serve_args(args)
    return args


async def _serve(args: Any, announce: Announce) -> None:
    import uvicorn
    import vllm
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.launcher import validate_api_server_args

    validate_api_server_args(args)
    async with build_async_engine_client(args) as client:
        workers = await client.collective_rpc("moorage_facts")
        tasks = await client.get_supported_tasks()
        app = build_app(args, tasks, client.model_config)
        await init_app_state(client, app.state, args, tasks)
        _add_probe(app, client)
        _tell_numbers_of_long_prompts(app, client.model_config.max_model_len)
        with socket.socket() as listening:
            listening.bind((LOOPBACK, 0))
            server = uvicorn.Server(
                uvicorn.Config(_silent_when_dead(app, client), log_level="warning", access_log=False)
            )
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
            device, held = device_used(workers)
            announce(
                Announcement(
                    port=listening.getsockname()[1],
                    version=vllm.__version__,
                    device=device,
                    memory_bytes=held,
                    quantization=quantization_used(client.model_config.quantization, workers),
                    dtype=str(client.model_config.dtype).removeprefix("torch."),
                    weights_bytes=sum(size for worker in workers for size in worker["bytes"].values()),
                )
            )
            while not client.errored and not serving.done():  # noqa: ASYNC110 - nor has vLLM
                await asyncio.sleep(LOOK_EVERY)
    _end()


def _silent_when_dead(app: Any, client: Any) -> Any:
    """Keep vLLM from ending a stream in order, with [DONE], after its engine has died: the front tells of that end."""

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        async def pass_on(message: Any) -> None:
            if client.errored:
                _end()
            await send(message)

        await app(scope, receive, pass_on)

    return checked


def _end() -> None:
    """End at once, so that requests hear of it from their sockets; nothing is taken down in order."""
    print("ERROR: vLLM's engine has died", file=sys.stderr, flush=True)
    os._exit(1)


def _add_probe(app: Any, client: Any) -> None:
    """Add a route that only a turn of the engine's loop answers; vLLM's /health says 200 while that loop is stopped."""

    async def probe() -> dict[str, bool]:
        await client.is_sleeping()
        return {"answers": True}

    app.add_api_route(PROBE, probe, methods=["GET"])


def _tell_numbers_of_long_prompts(app: Any, context: int) -> None:
    """Give the error of a prompt over the context as numbers; vLLM's own has them in a sentence only."""
    from fastapi.responses import JSONResponse
    from vllm.entrypoints.serve.exception_handling.handlers.vllm_error import vllm_error_handler
    from vllm.exceptions import VLLMValidationError

    async def handle(request: Any, error: Any) -> Any:
        if error.parameter not in ("input_tokens", "input_text"):
            return await vllm_error_handler(request, error)
        # Of a long text it counts characters only, and knows that they are too many.
        count = error.value if error.parameter == "input_tokens" else context + 1
        told = {"type": TOO_LONG, "message": str(error), "n_prompt_tokens": count, "n_ctx": context}
        return JSONResponse({"error": told}, status_code=400)

    app.add_exception_handler(VLLMValidationError, handle)
    # vLLM has built the stack of middleware already, with a copy of the handlers.
    app.middleware_stack = app.build_middleware_stack()


def device_used(workers: list[dict[str, Any]]) -> tuple[str, int | None]:
    """Give what the workers run on, and what they hold of accelerators."""
    devices = sorted({str(worker["device"]) for worker in workers})
    held = [worker["memory"] for worker in workers if worker["memory"] is not None]
    return "+".join(devices) or CPU, sum(held) if held else None


def quantization_used(configured: str | None, workers: list[dict[str, Any]]) -> str:
    """Give what the weights have, in the words of spec.quantization: `none` where no module is quantized.

    vLLM goes on without a word where a scheme does not fit a layer, so its config alone proves nothing.
    """
    methods = Counter[str]()
    for worker in workers:
        methods.update(worker["methods"])
    if configured is None or not methods.keys() - PLAIN:
        return "none"
    return WORDS.get(configured, configured)
