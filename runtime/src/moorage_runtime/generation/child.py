"""The child's life: load, look at what was loaded, listen, and end when a thread that it needs is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import msgspec
import torch
import transformers

from moorage_runtime.engines.base import Announce, Announcement
from moorage_runtime.engines.loopback import listen
from moorage_runtime.generation.batch import Batch
from moorage_runtime.generation.config import ChildConfig
from moorage_runtime.generation.encoder import Encoder
from moorage_runtime.generation.load import Found, defaults, ends, found, load
from moorage_runtime.generation.service import Service
from moorage_runtime.generation.tokens import Words

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
GRACE_SECONDS = 0.25
"""Requests that failed with the loop, or with the encoder, get their answers in this time."""


def serve(config: bytes, announce: Announce) -> None:
    """Serve until the process ends."""
    wanted = msgspec.json.decode(config, type=ChildConfig)
    _configure_logs(verbose=wanted.verbose)
    torch.set_num_threads(wanted.threads)
    model, tokenizer = load(wanted)
    facts = found(model)
    log.info("loaded %s as %s, %d bytes on %s", facts.quantization, facts.dtype, facts.weights_bytes, facts.device)
    marks = ends(model, tokenizer)
    batch = Batch(model, wanted, marks)
    batch.start(warm=wanted.compile)
    words = Words(tokenizer, model.get_input_embeddings().num_embeddings, marks)
    service = Service(batch, words, name=wanted.name, context=wanted.context, defaults=defaults(model))

    async def live() -> None:
        if wanted.compile:
            await batch.warm()
        server = await _listen(service, facts, announce)
        await _end(server, batch, service.encoder)

    asyncio.run(live())


async def _listen(service: Service, facts: Found, announce: Announce) -> asyncio.Server:
    server, port = await listen(service.handle)
    announce(
        Announcement(
            port=port,
            version=transformers.__version__,
            device=facts.device,
            memory_bytes=facts.memory_bytes,
            quantization=facts.quantization,
            dtype=facts.dtype,
            weights_bytes=facts.weights_bytes,
        )
    )
    return server


async def _end(server: asyncio.Server, batch: Batch, encoder: Encoder) -> None:
    """End the process when one of its threads is lost: the supervisor starts another."""
    while server.is_serving() and batch.alive and not encoder.stuck:  # noqa: ASYNC110 - a lost thread sets no event
        await asyncio.sleep(WATCH_SECONDS)
    log.critical(encoder.problem if encoder.stuck else "the loop that generates has ended")
    await asyncio.sleep(GRACE_SECONDS)
    sys.stderr.flush()
    os._exit(1)


def _configure_logs(*, verbose: bool) -> None:
    """Write lines that begin with their level, which is how the front knows it."""
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("moorage_runtime").setLevel(logging.INFO)
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()
    transformers.utils.logging.disable_progress_bar()
    # At every start it says of each layer that bfloat16 becomes float16 on the way.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if verbose:
        transformers.utils.logging.set_verbosity_info()
