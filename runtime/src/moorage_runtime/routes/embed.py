"""What an embedding service says of itself: `GET /stats`, which is asked of the engine, and `GET /`."""

import asyncio
from typing import Final

from moorage_common.http.client import UpstreamGone
from moorage_common.http.message import Answer, Request, json_answer
from moorage_common.http.responder import Responder
from moorage_common.tasks import Task
from moorage_runtime.collected import Collected
from moorage_runtime.errors import not_found, unavailable
from moorage_runtime.service import Service
from moorage_runtime.settings import Backend

STATS_SECONDS: Final = 5.0


async def stats(service: Service, request: Request, responder: Responder) -> None:
    """Pass on the engine's counts: batches, queue, tokens, padding."""
    pool = service.supervisor.backend
    if not _is_embedding_service(service):
        responder.send(not_found(f"There is no {request.path} here: this model does not embed."))
        return
    if pool is None:
        responder.send(unavailable("The model is not ready.", "model_not_ready"))
        return
    answer = Collected()
    try:
        async with asyncio.timeout(STATS_SECONDS):
            await pool.exchange(pool.request_bytes("GET", "/stats"), answer)
    except (TimeoutError, UpstreamGone):
        responder.send(unavailable("The engine does not answer.", "engine_restarting"))
        return
    responder.send(Answer(answer.status, answer.content))


async def index(service: Service, request: Request, responder: Responder) -> None:
    """Say what this is and where to ask."""
    plan = service.supervisor.plan
    if not _is_embedding_service(service):
        responder.send(not_found(f"There is no {request.path} here."))
        return
    told = {"service": "moorage-runtime", "task": service.settings.model_task, "status": service.phase}
    known = {} if plan is None else {"model": plan.served_name, "routes": sorted(plan.routes)}
    responder.send(json_answer(200, {**told, **known}))


def _is_embedding_service(service: Service) -> bool:
    """Say whether the engine is the one that has these routes; others embed by /v1/embeddings alone."""
    settings = service.settings
    return settings.model_task is Task.EMBED and settings.model_backend is Backend.TRANSFORMERS
