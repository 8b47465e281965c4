"""Requests that the engine answers: the body is checked and written anew, the answer is passed on as it comes."""

import asyncio
import re
from typing import Final

from moorage_common.facts import Phase
from moorage_common.http.client import UpstreamGone
from moorage_common.http.message import Refusal, Request
from moorage_common.http.relay import Relay
from moorage_common.http.responder import Responder
from moorage_runtime.body import read_body
from moorage_runtime.contract import Contract
from moorage_runtime.errors import deadline_passed, engine_error, engine_gone, not_found, unavailable
from moorage_runtime.metrics import GAP_BOUNDS
from moorage_runtime.service import Service

# OpenAI's usage, and llama.cpp's timings, which its streams have without being asked; a text cannot contain either, as
# its quotes are escaped.
_GENERATED: Final = re.compile(rb'"(?:completion_tokens|predicted_n)":\s*(\d+)')
_ASKED: Final = re.compile(rb'"prompt_tokens":\s*(\d+)')
_CACHED: Final = re.compile(rb'"cache_n":\s*(\d+)')
_MOST_READ: Final = 16 * 1024
_READ: Final = re.compile(rb'"prompt_n":\s*(\d+)')


async def relay(service: Service, request: Request, responder: Responder) -> None:
    """Pass a request to the engine and its answer to the client."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    answer = Relay(responder, clock, GAP_BOUNDS if service.metrics.gaps is not None else None)
    try:
        body = read_body(request.path, request.body, _contract(service, request))
        async with asyncio.timeout(service.settings.request_timeout):
            await service.admission.enter(body.places)
            service.metrics.entered(clock() - begun, service.admission.running)
            try:
                await _exchange(service, request.path, body.content, answer)
            finally:
                service.admission.leave(body.places)
    except TimeoutError:
        service.metrics.timed_out()
        answer.broken(504, deadline_passed(service.settings.request_timeout))
    except Refusal as refusal:
        responder.send(refusal.answer)
    finally:
        # 499 is what nginx writes for a client that left before it had an answer.
        service.metrics.answered(request.path, responder.status or 499, clock() - begun)
        if responder.status == 200:
            _count(service, request.path, answer, begun)


async def _exchange(service: Service, path: str, body: bytes, answer: Relay) -> None:
    supervisor = service.supervisor
    pool = await supervisor.awake()
    if pool is None:
        raise Refusal(unavailable("The engine is being started again.", "engine_restarting"))
    answer.last_byte = asyncio.get_running_loop().time()
    service.relays.add(answer)
    try:
        await pool.exchange(pool.request_bytes("POST", path, body), answer)
    except UpstreamGone as gone:
        service.metrics.broke()
        answer.broken(502, engine_gone(str(gone)))
    else:
        answer.complete(lambda status, body: supervisor.engine.error(status, engine_error(status, body)))
    finally:
        service.relays.discard(answer)


def _contract(service: Service, request: Request) -> Contract:
    """Give what requests may be; raise Refusal where none is taken now, or not on this route."""
    phase = service.phase
    if phase is Phase.DRAINING:
        raise Refusal(unavailable("This runtime is shutting down.", "shutting_down", close=True))
    if not service.takes_requests:
        raise Refusal(unavailable(f"The model is not ready: {phase.value}.", "model_not_ready"))
    plan = service.supervisor.plan
    if plan is None or request.path not in plan.routes:
        raise Refusal(not_found(f"The engine of this model has no {request.path}."))
    return Contract(
        served=plan.served_name,
        limit=service.admission.limit,
        defaults=service.defaults,
        refused=plan.refused,
        renamed=plan.renamed,
        capped=plan.capped,
        chats_only=plan.chats_only,
        one_answer=plan.one_answer,
        formats_as_schemas=plan.formats_as_schemas,
        vocabulary=plan.vocabulary,
        context=plan.facts.context_length,
        longest_token=plan.longest_token,
    )


def _count(service: Service, route: str, answer: Relay, begun: float) -> None:
    """Take what a complete answer says of tokens and times."""
    metrics, told = service.metrics, answer.kept()
    if len(told) > _MOST_READ:
        told = told[: _MOST_READ // 2] + told[-_MOST_READ // 2 :]  # usage stands before or after what is long
    asked, generated = _last(_ASKED, told), _last(_GENERATED, told)
    if answer.streamed and answer.first_byte is not None:
        rest = answer.last_byte - answer.first_byte
        metrics.streamed(route, answer.first_byte - begun, rest, generated)
        if metrics.gaps is not None:
            metrics.gaps.add(answer.gaps, rest)
    if asked or generated:
        metrics.counted(route, asked or _last(_CACHED, told) + _last(_READ, told), generated)


def _last(pattern: re.Pattern[bytes], text: bytes) -> int:
    found = pattern.findall(text)
    return int(found[-1]) if found else 0
