"""Requests that the engine answers: a few fields are read, the body is passed on as it came, the answer as it comes."""

import asyncio
import re
from typing import Any, Final

import msgspec

from moorage_common.facts import Phase
from moorage_common.http.client import UpstreamGone
from moorage_common.http.message import Refusal, Request
from moorage_common.http.relay import Relay
from moorage_common.http.responder import Responder
from moorage_runtime.errors import bad_request, engine_error, engine_gone, not_found, unavailable
from moorage_runtime.service import Service

# Both OpenAI's usage and llama.cpp's timings; a text cannot contain either, as its quotes are escaped.
_TOKENS: Final = re.compile(rb'"(?:completion_tokens|predicted_n)":\s*(\d+)')


class Wanted(msgspec.Struct):
    """The fields of a request that the front reads."""

    model: str | None = None
    logprobs: Any = None
    top_logprobs: Any = None
    n_probs: Any = None
    prompt: msgspec.Raw = msgspec.Raw(b"")


_NUMBER: Final = tuple(bytes([digit]) for digit in b"-0123456789")

MAX_LOGPROBS: Final = 20
"""OpenAI's limit. llama.cpp has none, and would write the whole vocabulary, megabytes for each token."""

_DECODER: Final = msgspec.json.Decoder(Wanted)
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


async def relay(service: Service, request: Request, responder: Responder) -> None:
    """Pass a request to the engine and its answer to the client."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    answer = Relay(responder, clock)
    try:
        _check_state(service, request)
        _check_body(service, request)
        await service.admission.enter()
        try:
            await _exchange(service, request, answer)
        finally:
            service.admission.leave()
    except Refusal as refusal:
        responder.send(refusal.answer)
    finally:
        # 499 is what nginx writes for a client that left before it had an answer.
        service.metrics.answered(request.path, responder.status or 499, clock() - begun)
        if responder.status == 200:
            _count(service, request.path, answer, begun, streamed=answer.streamed)


async def _exchange(service: Service, request: Request, answer: Relay) -> None:
    supervisor = service.supervisor
    pool = supervisor.backend
    if pool is None:
        raise Refusal(unavailable("The engine is being started again.", "engine_restarting"))
    answer.last_byte = asyncio.get_running_loop().time()
    service.relays.add(answer)
    try:
        await pool.exchange(pool.request_bytes("POST", request.path, request.body), answer)
    except UpstreamGone as gone:
        service.metrics.broke()
        answer.broken(502, engine_gone(str(gone)))
    else:
        answer.complete(lambda status, body: supervisor.engine.error(status, engine_error(status, body)))
    finally:
        service.relays.discard(answer)


def _check_state(service: Service, request: Request) -> None:
    phase = service.phase
    if phase is Phase.DRAINING:
        raise Refusal(unavailable("This runtime is shutting down.", "shutting_down", close=True))
    if phase is not Phase.READY:
        raise Refusal(unavailable(f"The model is not ready: {phase.value}.", "model_not_ready"))
    plan = service.supervisor.plan
    if plan is None or request.path not in plan.routes:
        raise Refusal(not_found(f"The engine of this model has no {request.path}."))


def _check_body(service: Service, request: Request) -> None:
    try:
        if not request.body.isascii():
            request.body.decode()  # msgspec looks only at the text of fields that it keeps
        wanted = _DECODER.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(bad_request(f"The body is not a valid JSON object: {error}.")) from error
    except RecursionError:
        raise Refusal(bad_request("The body is nested too deeply.")) from None
    for name in ("logprobs", "top_logprobs", "n_probs"):
        count = getattr(wanted, name)
        if isinstance(count, (int, float)) and not 0 <= count <= MAX_LOGPROBS:
            raise Refusal(bad_request(f'"{name}" is {count}; 0 to {MAX_LOGPROBS} are possible.', param=name))
    _check_prompts(wanted.prompt, service.admission.limit)
    plan = service.supervisor.plan
    served = plan.served_name if plan is not None else ""
    if wanted.model is None:
        raise Refusal(bad_request(f'The field "model" is missing; the model served here is "{served}".', param="model"))
    if wanted.model != served:
        raise Refusal(
            not_found(
                f'The model "{wanted.model[:200]}" is not served here; "{served}" is.',
                param="model",
                code="model_not_found",
            )
        )


def _check_prompts(prompt: msgspec.Raw, limit: int) -> None:
    """Refuse a list of more prompts than the engine has slots: each is work of its own, which nothing else counts."""
    if not bytes(prompt).startswith(b"["):
        return
    items = _LIST.decode(prompt)
    # A list with a number in it is one prompt, in tokens or in pieces of text and tokens.
    if len(items) > limit and not any(bytes(item).startswith(_NUMBER) for item in items):
        message = f"{len(items)} prompts are in one request; at most {limit} are possible."
        raise Refusal(bad_request(message, param="prompt"))


def _count(service: Service, route: str, answer: Relay, begun: float, *, streamed: bool) -> None:
    if streamed and answer.first_byte is not None:
        service.metrics.streamed(route, answer.first_byte - begun)
    found = _TOKENS.findall(answer.kept())
    if found:
        service.metrics.generated(int(found[-1]))
