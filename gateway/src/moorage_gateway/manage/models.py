"""The models: list, create, read, replace, delete. Each is one request to the API server, by the caller's rights."""

import base64
import binascii
from itertools import product
from typing import Annotated, Any, Final

from fastapi import Query, Request, Response

from moorage_common.labels import IDEMPOTENCY_BODY_ANNOTATION, IDEMPOTENCY_LABEL
from moorage_common.manifests import clean, documents
from moorage_gateway.kube.client import STRICT
from moorage_gateway.kube.errors import ApiError, ConflictError, ForbiddenError
from moorage_gateway.kube.resources import INFERENCE_MODELS, MODEL_ALIASES, named
from moorage_gateway.manage.answers import model_answer, model_id, model_told, told
from moorage_gateway.manage.audit import audited
from moorage_gateway.manage.callers import Asking, Caller
from moorage_gateway.manage.fields import API_VERSION, ModelBody, metadata_of, spec_of
from moorage_gateway.manage.naming import Target, Targeted
from moorage_gateway.manage.problems import Problem
from moorage_gateway.manage.routing import of_model, router
from moorage_gateway.manage.versions import asked_version, changed, check_version, idempotency, was_sent

MOST: Final = 1000

routes = router()

Namespace = Annotated[str | None, Query(max_length=63, description="One namespace; else all that are served.")]
Selector = Annotated[str, Query(alias="labelSelector", max_length=1000, description="Of Kubernetes.")]


@routes.get("/api/models", summary="List models", tags=["models"])
async def list_models(
    caller: Asking,
    namespace: Namespace = None,
    label_selector: Selector = "",
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 500,
    start: Annotated[
        str, Query(alias="continue", max_length=4000, description="`continue` of the answer before.")
    ] = "",
) -> Response:
    """The models that the caller may see, by namespace; namespaces of which none may be listed are left out."""
    namespaces = caller.cluster.namespaces if namespace is None else (caller.cluster.served(named(namespace)),)
    first, token = _place(start, len(namespaces))
    found: list[dict[str, Any]] = []
    refused: list[ForbiddenError] = []
    going_on = ""
    for index, one in enumerate(namespaces[first:], first):
        if len(found) >= limit:
            going_on = _opaque(index, "")
            break
        selectors = {"labelSelector": label_selector} if label_selector else {}
        try:
            page = await caller.kube.page(INFERENCE_MODELS, one, selectors, limit=limit - len(found), token=token)
        except ForbiddenError as error:
            refused.append(error)
            continue
        finally:
            token = ""
        found += page["items"]
        if more := page["metadata"].get("continue", ""):
            going_on = _opaque(index, more)
            break
    if refused and len(refused) == len(namespaces):
        raise refused[0]
    return told({"models": [model_told(model) for model in found], "continue": going_on or None})


@routes.post("/api/models", status_code=201, summary="Create a model", tags=["models"])
async def create_model(request: Request, caller: Asking, body: ModelBody) -> Response:
    """Make an InferenceModel. The same Idempotency-Key and body again are the same answer, another body is 422."""
    metadata = metadata_of(body)
    target = _target(caller, metadata.namespace, metadata.name)
    spec = spec_of(body)
    kept = idempotency(request, await caller.name(), body.model_dump(mode="json", exclude_none=True))
    if kept is not None and (before := await _made_before(caller, target, kept)) is not None:
        return model_answer(
            before, 201, {"Idempotency-Replayed": "true", "Location": f"/api/models/{model_id(before)}"}
        )
    labels, annotations = dict(metadata.labels or {}), dict(metadata.annotations or {})
    if kept is not None:
        labels[IDEMPOTENCY_LABEL], annotations[IDEMPOTENCY_BODY_ANNOTATION] = kept
    manifest = {
        "apiVersion": API_VERSION,
        "kind": INFERENCE_MODELS.kind,
        "metadata": {**target._asdict(), "labels": labels, "annotations": annotations},
        "spec": spec,
    }
    try:
        async with audited(request, caller, "create", str(target)):
            made = await caller.kube.create(INFERENCE_MODELS, manifest, STRICT)
    except ConflictError:
        # Two that are the same may have come at once.
        if kept is None or (before := await _same(caller, target, kept)) is None:
            raise
        return model_answer(before, 201, {"Idempotency-Replayed": "true"})
    return model_answer(made, 201, {"Location": f"/api/models/{target}"})


@of_model(routes, "GET", summary="Read a model", tags=["models"])
async def read_model(caller: Asking, target: Targeted) -> Response:
    """The model, with its version as ETag."""
    return model_answer(await caller.kube.get(INFERENCE_MODELS, *target))


@of_model(routes, "PUT", summary="Replace a model's spec", tags=["models"])
async def replace_model(request: Request, caller: Asking, target: Targeted, body: ModelBody) -> Response:
    """Replace the spec, and labels where they are sent; with If-Match (else 412) or resourceVersion (else 409)."""
    metadata = metadata_of(body)
    for field, told_name, meant in (
        ("name", metadata.name, target.name),
        ("namespace", metadata.namespace, target.namespace),
    ):
        if told_name is not None and told_name != meant:
            text = f"{field} is {told_name[:100]!r}, and the address says {meant!r}: a model cannot be renamed."
            raise Problem(422, text, "invalid", fields=[(field, text)])
    spec, if_match = spec_of(body), asked_version(request)
    async with audited(request, caller, "update", str(target)):
        live = await caller.kube.get(INFERENCE_MODELS, *target)
        version = check_version(live, if_match, metadata.resource_version)
        kept = {key: value for key, value in live["metadata"].items() if key != "managedFields"}
        for part in ("labels", "annotations"):
            if (wanted := getattr(metadata, part)) is not None:
                kept[part] = wanted
        manifest = {**live, "metadata": {**kept, "resourceVersion": version}, "spec": spec}
        try:
            made = await caller.kube.replace(INFERENCE_MODELS, manifest, STRICT)
        except ConflictError as error:
            live = await caller.kube.get(INFERENCE_MODELS, *target)
            raise changed(live, 412 if if_match is not None else 409) from error
    return model_answer(made)


@of_model(routes, "DELETE", summary="Delete a model", tags=["models"])
async def delete_model(request: Request, caller: Asking, target: Targeted) -> Response:
    """Delete the model; its pods end in the background. With If-Match only that version."""
    if_match = asked_version(request)
    async with audited(request, caller, "delete", str(target)):
        try:
            await caller.kube.delete(INFERENCE_MODELS, *target, version=if_match)
        except ConflictError as error:
            raise changed(await caller.kube.get(INFERENCE_MODELS, *target), 412) from error
    return told({"id": str(target), "deleted": True})


@routes.get("/api/export", summary="Export models and aliases", tags=["backup"])
async def export_models(caller: Asking, namespace: Namespace = None, label_selector: Selector = "") -> Response:
    """All models and aliases as YAML that `kubectl apply` and `kubectl moorage import` take: a backup.

    What the caller may not list is named in comments at the beginning.
    """
    namespaces = caller.cluster.namespaces if namespace is None else (caller.cluster.served(named(namespace)),)
    selectors = {"labelSelector": label_selector} if label_selector else {}
    texts: list[str] = []
    refused: list[str] = []
    wanted = list(product((INFERENCE_MODELS, MODEL_ALIASES), namespaces))
    for resource, one in wanted:
        pages = caller.kube.pages(resource, one, selectors)
        try:
            texts += [documents(clean(item, resource.kind) for item in page["items"]) async for page in pages]
        except ForbiddenError as error:
            refused.append(f"# {resource.plural} of namespace {one} are missing: {error.status} {error.reason}\n")
            if len(refused) == len(wanted):
                raise
    texts[:0] = refused
    headers = {"Content-Disposition": 'attachment; filename="models.yaml"', "Cache-Control": "no-store"}
    return Response("".join(texts), media_type="application/yaml", headers=headers)


def _target(caller: Caller, namespace: str | None, name: str | None) -> Target:
    if namespace is None and None not in caller.cluster.namespaces and len(caller.cluster.namespaces) == 1:
        namespace = caller.cluster.namespaces[0]
    missing = [(field, f"{field} is missing") for field, text in (("namespace", namespace), ("name", name)) if not text]
    if missing or namespace is None or name is None:
        raise Problem(422, "; ".join(text for _, text in missing), "invalid", fields=missing)
    return Target(caller.cluster.served(named(namespace)), named(name))


async def _made_before(caller: Caller, target: Target, kept: tuple[str, str]) -> dict[str, Any] | None:
    """The model that the same request has made; Problem 422 where another one came with this key."""
    selector = {"labelSelector": f"{IDEMPOTENCY_LABEL}={kept[0]}"}
    try:
        async for page in caller.kube.pages(INFERENCE_MODELS, target.namespace, selector):
            for model in page["items"]:
                if was_sent(model, kept):
                    return dict(model)
    except ForbiddenError:
        # Somebody who may create but not list: the name is what tells a second one.
        return None
    return None


async def _same(caller: Caller, target: Target, kept: tuple[str, str]) -> dict[str, Any] | None:
    try:
        live = await caller.kube.get(INFERENCE_MODELS, *target)
    except ApiError:
        return None
    return live if was_sent(live, kept) else None


def _opaque(index: int, token: str) -> str:
    return base64.urlsafe_b64encode(f"{index}:{token}".encode()).decode()


def _place(text: str, count: int) -> tuple[int, str]:
    if not text:
        return 0, ""
    try:
        index, _, token = base64.urlsafe_b64decode(text).decode().partition(":")
        if not index.isdecimal() or int(index) >= count:
            raise ValueError
        return int(index), token
    except (binascii.Error, ValueError):
        problem = "continue is not what an answer gave"
        raise Problem(400, problem, "invalid_continue", fields=[("continue", problem)]) from None
