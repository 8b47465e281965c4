"""Child side of embeddings: load the model, announce a port, serve until the process is ended."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Final

import msgspec
import torch
import transformers
import uvloop

from moorage_common.facts import CPU
from moorage_runtime.embedding.batching import Batcher
from moorage_runtime.embedding.config import ChildConfig, EmbeddingModel, Input
from moorage_runtime.embedding.queueing import BatchPolicy
from moorage_runtime.embedding.service import Service
from moorage_runtime.engines.base import Announce, Announcement
from moorage_runtime.engines.loopback import listen

BATCH_TOKENS: Final = {CPU: 2048, "cuda": 32_768}
"""Tokens in a batch: on a CPU more of them make nothing faster, and others wait longer."""

ENDED_BY_MODEL: Final = 70


def serve(config: bytes, announce: Announce) -> None:
    """Load and serve; the process ends by a signal."""
    wanted = msgspec.json.decode(config, type=ChildConfig)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(wanted.threads)
    model = load(wanted)
    # What is loaded stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    uvloop.run(_serve(model, wanted, announce))


def load(config: ChildConfig) -> EmbeddingModel:
    """Load the model onto the accelerator where there is one."""
    device = "cuda" if torch.cuda.is_available() else CPU
    if config.kind == "vision":
        from moorage_runtime.embedding.vision import VisionModel

        return VisionModel(config, device)
    from moorage_runtime.embedding.texts import SentenceModel

    return SentenceModel(config, device)


async def _serve(model: EmbeddingModel, config: ChildConfig, announce: Announce) -> None:
    policy = BatchPolicy(
        size=config.batch_size,
        tokens=max(BATCH_TOKENS[model.device], config.max_tokens),
        patience=config.max_wait_ms / 1000,
        padded=model.padded,
    )
    canary = model.prepare([Input(text="Hi")])[0]
    batcher = Batcher(model.compute, policy, broken=_end, canary=canary)
    batcher.start()
    service = Service(model, batcher, config)
    server, port = await listen(service.handle)
    announce(
        Announcement(
            port=port,
            version=transformers.__version__,
            device=model.device,
            memory_bytes=model.memory_bytes(),
        )
    )
    await server.serve_forever()


def _end(error: BaseException) -> None:
    """End the process: the supervisor starts a new one, with a model that is whole."""
    print(f"ERROR the model is broken: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(ENDED_BY_MODEL)
