"""What the runtime says of itself: models, health, readiness, facts, metrics. Only metrics asks the engine."""

import time
from dataclasses import replace
from typing import Final
from urllib.parse import unquote

import msgspec

from moorage_common.facts import EngineFacts, Phase
from moorage_common.http.message import Request, json_answer
from moorage_common.http.responder import Responder
from moorage_common.shape import Shape
from moorage_runtime import machine
from moorage_runtime.engine_metrics import engine_metrics
from moorage_runtime.engines.base import Plan
from moorage_runtime.errors import not_found
from moorage_runtime.memory import Memory, memory
from moorage_runtime.service import Service

MODEL_PATH: Final = "/v1/models/"


class Details(msgspec.Struct, frozen=True):
    """The same in the words of the small-model server, which programs of its users read."""

    memory: Memory
    engine: str | None
    engine_version: str | None
    device: str | None
    dtype: str | None
    quantization: str | None
    requested_quantization: str | None
    weights_bytes: int | None
    queue: dict[str, int]
    uptime_seconds: float


class DetailedHealth(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of `/health/detailed`; moorage_common.facts.Health is the part of it that the operator reads."""

    status: Phase
    facts: EngineFacts | None
    shape: Shape | None
    model: str | None
    requested_quantization: str | None
    in_flight: int
    queued: int
    max_concurrent_requests: int
    engine_restarts: int
    engine_resident_bytes: int | None
    load_seconds: float | None
    unload_after: float | None
    uptime_seconds: float


async def models(service: Service, request: Request, responder: Responder) -> None:
    """List the one model, as OpenAI does."""
    plan = service.supervisor.plan
    data = [] if plan is None else [_model(plan)]
    responder.send(json_answer(200, {"object": "list", "data": data}))


async def model(service: Service, request: Request, responder: Responder) -> None:
    """Tell of a model by its name, as OpenAI does."""
    plan, name = service.supervisor.plan, unquote(request.path.removeprefix(MODEL_PATH), encoding="latin-1")
    if plan is not None and name.encode("latin-1") == plan.served_name.encode():
        responder.send(json_answer(200, _model(plan)))
        return
    shown = name.encode("latin-1").decode(errors="replace")[:200]
    here = f'"{plan.served_name}" is' if plan is not None else "none is yet"
    message = f'The model "{shown}" is not served here; {here}.'
    responder.send(not_found(message, param="model", code="model_not_found"))


def _model(plan: Plan) -> dict[str, object]:
    context = {} if plan.facts.context_length is None else {"max_model_len": plan.facts.context_length}
    return {"id": plan.served_name, "object": "model", "created": 0, "owned_by": "moorage", **context}


async def alive(service: Service, request: Request, responder: Responder) -> None:
    """Say that the process lives; a model that loads for long must not look dead."""
    responder.send(json_answer(200, {"status": service.phase}))


async def ready(service: Service, request: Request, responder: Responder) -> None:
    """Say whether a request sent now would be answered."""
    responder.send(json_answer(200 if service.takes_requests else 503, {"status": service.phase}))


async def detailed(service: Service, request: Request, responder: Responder) -> None:
    """Say what is being loaded or is, and how busy it is."""
    supervisor = service.supervisor
    health = DetailedHealth(
        status=service.phase,
        facts=supervisor.facts,
        shape=supervisor.plan.shape if supervisor.plan else None,
        model=supervisor.plan.served_name if supervisor.plan else service.settings.model_name,
        requested_quantization=service.settings.model_quantization,
        in_flight=service.admission.running,
        queued=service.admission.waiting,
        max_concurrent_requests=service.admission.limit,
        engine_restarts=supervisor.restarts,
        engine_resident_bytes=machine.session_resident(supervisor.pid) if supervisor.pid is not None else None,
        load_seconds=supervisor.load_seconds,
        unload_after=service.settings.model_idle_timeout if service.settings.model_unload_enabled else None,
        uptime_seconds=round(time.monotonic() - service.started, 3),
    )
    responder.send(json_answer(200, {**msgspec.to_builtins(health), **msgspec.to_builtins(_details(service))}))


def _details(service: Service) -> Details:
    facts, admission = service.supervisor.facts, service.admission
    return Details(
        memory=_memory(service),
        engine=facts.engine if facts else None,
        engine_version=facts.engine_version if facts else None,
        device=facts.device if facts else None,
        dtype=getattr(facts, "dtype", None),
        quantization=facts.quantization if facts else None,
        requested_quantization=service.settings.model_quantization,
        weights_bytes=facts.weights_bytes if facts else None,
        queue={"running": admission.running, "waiting": admission.waiting, "limit": admission.queue_limit},
        uptime_seconds=round(time.monotonic() - service.started, 3),
    )


async def memory_use(service: Service, request: Request, responder: Responder) -> None:
    """Say how much memory front and engine have, now and at most."""
    told = msgspec.to_builtins(_memory(service))
    responder.send(json_answer(200, {"status": service.phase, "memory": told}))


def _memory(service: Service) -> Memory:
    return memory(service.supervisor.pid, service.supervisor.engine_peak())


async def metrics(service: Service, request: Request, responder: Responder) -> None:
    """Write the metrics, and the engine's own after them."""
    ours, supervisor = service.metrics.answer(), service.supervisor
    theirs = await engine_metrics(supervisor.plan, supervisor.backend)
    responder.send(replace(ours, body=ours.body + theirs) if theirs else ours)
