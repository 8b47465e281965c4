"""What is told of a model: its spec, and its status in short and in full. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastapi import Response

from moorage_common.labels import IDEMPOTENCY_LABEL

JSON: Final = "application/json"


def model_id(model: Mapping[str, Any]) -> str:
    """What a model is called in addresses: `namespace/name`."""
    metadata = model["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


def model_told(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model as the answer to a request."""
    metadata = model["metadata"]
    labels = {name: text for name, text in (metadata.get("labels") or {}).items() if name != IDEMPOTENCY_LABEL}
    return {
        "id": model_id(model),
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "labels": labels,
        "spec": model.get("spec") or {},
        **_short(model),
        "createdAt": metadata["creationTimestamp"],
        "generation": metadata.get("generation", 1),
        "resourceVersion": metadata["resourceVersion"],
    }


def status_told(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's status: in short, and all that the operator says."""
    metadata, status = model["metadata"], model.get("status") or {}
    short = _short(model)
    return {
        "id": model_id(model),
        **short,
        # The operator has not seen the last change yet where this is false.
        "current": status.get("observedGeneration") == metadata.get("generation"),
        "status": status,
    }


def _short(model: Mapping[str, Any]) -> dict[str, Any]:
    """The phase, and why: the condition Ready in words. Without a status nobody has looked at the model yet."""
    metadata, status = model["metadata"], model.get("status") or {}
    conditions = status.get("conditions") or ()
    ready: Mapping[str, Any] = next((condition for condition in conditions if condition["type"] == "Ready"), {})
    return {
        "phase": "Deleting" if "deletionTimestamp" in metadata else status.get("phase") or "Unknown",
        "ready": ready.get("status") == "True",
        "reason": ready.get("reason", ""),
        "message": ready.get("message", ""),
        "url": status.get("url", ""),
    }


def etag(model: Mapping[str, Any]) -> str:
    """The version of a model, as a header has it."""
    return f'"{model["metadata"]["resourceVersion"]}"'


def told(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer; none of them may be kept by a cache."""
    more = {"Cache-Control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(content), status, more, JSON)


def model_answer(model: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model with its version."""
    return told(model_told(model), status, {"ETag": etag(model), **(headers or {})})
