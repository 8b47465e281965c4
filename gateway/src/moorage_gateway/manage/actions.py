"""What can be done with one model: start, stop, restart, and its status, logs and answers.

Start and stop are spec.suspend, as with `kubectl patch`; a restart is an annotation that the operator carries into the
pods, so neither fights with it. Requests to a model are the data plane's work: what is returned for them says where
they go on, with the rights of the caller checked here.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from moorage_common.labels import API_GROUP, RESTARTED_AT_ANNOTATION
from moorage_gateway.kube.resources import INFERENCE_MODELS
from moorage_gateway.manage.answers import model_answer, status_told, told
from moorage_gateway.manage.audit import audited
from moorage_gateway.manage.callers import Asking, allowed
from moorage_gateway.manage.fields import Strict
from moorage_gateway.manage.logs import LogOptions, Readers, log_lines, pods_of
from moorage_gateway.manage.naming import Targeted
from moorage_gateway.manage.problems import Problem
from moorage_gateway.manage.routing import of_model, router
from moorage_gateway.manage.versions import idempotency

GO_ON_HEADER: Final = "X-Moorage-Go-On"
"""In an answer to the data plane: send this body to that model, as a completion."""

RESTART_KEY_ANNOTATION: Final = f"{API_GROUP}/restart-key"

routes = router()
readers = Readers()


@of_model(routes, "POST", "/start", status_code=202, summary="Start a model", tags=["models"])
async def start_model(request: Request, caller: Asking, target: Targeted) -> Response:
    """Set spec.suspend to false, and replicas to 1 where they are 0. A model that runs stays as it is."""
    async with audited(request, caller, "start", str(target)):
        live = await caller.kube.get(INFERENCE_MODELS, *target)
        change: dict[str, Any] = {"suspend": False}
        if live["spec"].get("replicas") == 0:
            change["replicas"] = 1
        return model_answer(await caller.kube.merge(INFERENCE_MODELS, *target, {"spec": change}), 202)


@of_model(routes, "POST", "/stop", status_code=202, summary="Stop a model", tags=["models"])
async def stop_model(request: Request, caller: Asking, target: Targeted) -> Response:
    """Set spec.suspend: what runs is finished, then the model's GPUs are free."""
    async with audited(request, caller, "stop", str(target)):
        return model_answer(await caller.kube.merge(INFERENCE_MODELS, *target, {"spec": {"suspend": True}}), 202)


@of_model(routes, "POST", "/restart", status_code=202, summary="Restart a model", tags=["models"])
async def restart_model(request: Request, caller: Asking, target: Targeted) -> Response:
    """Replace its pods by new ones, one after the other, as `kubectl rollout restart` does."""
    kept = idempotency(request, await caller.name(), "restart")
    async with audited(request, caller, "restart", str(target)):
        live = await caller.kube.get(INFERENCE_MODELS, *target)
        annotations = live["metadata"].get("annotations") or {}
        if kept is not None and annotations.get(RESTART_KEY_ANNOTATION) == kept[0]:
            return model_answer(live, 202, {"Idempotency-Replayed": "true"})
        if live["spec"].get("suspend") or live["spec"].get("replicas") == 0:
            raise Problem(409, f"The model {target} is stopped; start it.", "stopped")
        notes: dict[str, Any] = {RESTARTED_AT_ANNOTATION: datetime.now(UTC).isoformat()}
        notes[RESTART_KEY_ANNOTATION] = kept[0] if kept is not None else None
        return model_answer(
            await caller.kube.merge(INFERENCE_MODELS, *target, {"metadata": {"annotations": notes}}), 202
        )


@of_model(routes, "GET", "/status", summary="A model's status", tags=["models"])
async def model_status(caller: Asking, target: Targeted) -> Response:
    """Phase, reason and the whole status: conditions, queue position, preemptor, what runs."""
    return told(status_told(await caller.kube.get(INFERENCE_MODELS, *target)))


@of_model(routes, "GET", "/logs", summary="A model's log", tags=["models"])
async def model_logs(  # noqa: PLR0913 - one for each option
    caller: Asking,
    target: Targeted,
    *,
    follow: Annotated[bool, Query(description="Go on until the client leaves or the pods end.")] = False,
    tail: Annotated[int, Query(ge=0, le=10_000, description="Lines of each pod that are there already.")] = 100,
    since_seconds: Annotated[int | None, Query(ge=1, le=31_536_000, description="Only what is younger.")] = None,
    timestamps: Annotated[bool, Query(description="Begin each line with its time.")] = False,
    previous: Annotated[bool, Query(description="Of the container before the last restart.")] = False,
    container: Annotated[
        str, Query(max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", description="The pod's container.")
    ] = "runtime",
    pod: Annotated[str, Query(max_length=253, description="One pod; else all of the model, with names in front.")] = "",
) -> Response:
    """The log of the model's pods as text, at most ten of them."""
    model = await caller.kube.get(INFERENCE_MODELS, *target)
    pods = await pods_of(caller.kube, model)
    if pod:
        pods = [name for name in pods if name == pod]
    if not pods:
        reason = status_told(model)["reason"]
        which = f"no pod {pod!r}" if pod else "no pods"
        raise Problem(404, f"The model {target} has {which} now ({reason or 'no status yet'}).", "no_pods")
    options = LogOptions(container, tail, follow, since_seconds, timestamps, previous)
    lines = readers.counted(await caller.name(), log_lines(caller.kube, target.namespace, pods, options))
    # What is refused must be told before the answer begins.
    first = await anext(lines, b"")

    async def all_lines() -> Any:
        yield first
        async for line in lines:
            yield line

    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(all_lines(), media_type="text/plain; charset=utf-8", headers=headers)


class GenerateBody(Strict):
    """A prompt, and how to go on from it."""

    prompt: str = Field(
        description="The text to go on from.", max_length=1_000_000, examples=["The capital of France is"]
    )
    max_tokens: int | None = Field(None, ge=1, le=1_000_000, description="Tokens of the answer at most.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 always takes the likeliest token.")
    top_p: float | None = Field(None, ge=0, le=1)
    stop: str | list[str] | None = None
    stream: bool | None = Field(None, description="Send the answer as it is made, as events.")


@of_model(routes, "POST", "/generate", summary="Ask a model", tags=["models"])
async def generate(caller: Asking, target: Targeted, body: GenerateBody) -> Response:
    """The model's completion of a prompt, as OpenAI's API answers (`choices[0].text`); for those who may `create`
    `inferencemodels/generate`."""
    attributes = {
        **{"group": INFERENCE_MODELS.group, "resource": INFERENCE_MODELS.plural, "subresource": "generate"},
        **{"verb": "create", "namespace": target.namespace, "name": target.name},
    }
    # Of the holder of a key the data plane knows which models are theirs.
    if not caller.key and not await allowed(caller, attributes):
        text = f"You may not send requests to {target}: that takes create on inferencemodels/generate."
        raise Problem(403, text, "forbidden")
    who = await caller.name()
    content = msgspec.json.encode(body.model_dump(mode="json", exclude_none=True))
    headers = {GO_ON_HEADER: str(target), "X-Moorage-Caller": _plain(who)}
    return Response(content, media_type="application/json", headers=headers)


def _plain(who: str) -> str:
    """A name as a header takes it: a line end in one would begin another header, such as an order to go on."""
    return "".join(letter if "!" <= letter <= "~" else "?" for letter in who[:256])
