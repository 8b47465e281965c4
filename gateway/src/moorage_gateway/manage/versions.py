"""Two who change one model, and one who asks twice: versions (If-Match, resourceVersion) and Idempotency-Key."""

import hashlib
import re
from typing import Any, Final

import msgspec
from fastapi import Request

from moorage_common.labels import IDEMPOTENCY_BODY_ANNOTATION, IDEMPOTENCY_LABEL
from moorage_gateway.manage.answers import etag
from moorage_gateway.manage.problems import Problem

_ETAG: Final = re.compile(r'(?:W/)?"?([0-9]{1,20})"?')
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_DIGITS: Final = 40


def asked_version(request: Request) -> str | None:
    """The version that `If-Match` names; None where any will do."""
    text = request.headers.get("if-match")
    if text is None or text.strip() == "*":
        return None
    found = _ETAG.fullmatch(text.strip())
    if found is None:
        raise Problem(400, f"If-Match is {text[:80]!r}: send the ETag of the model, or *.", "invalid_if_match")
    return found[1]


def check_version(model: dict[str, Any], if_match: str | None, in_body: str | None) -> str:
    """The version to write on; Problem where the model is at another one than was asked for."""
    current: str = model["metadata"]["resourceVersion"]
    if if_match is not None and if_match != current:
        raise changed(model, 412)
    if in_body is not None and in_body != current:
        raise changed(model, 409)
    return current


def changed(model: dict[str, Any], status: int) -> Problem:
    """The model is not what the caller took it for."""
    current = model["metadata"]["resourceVersion"]
    text = f"The model has changed: it is at resourceVersion {current}. Read it again, and send your change for that."
    return Problem(
        status, text, "conflict", fields=[("resourceVersion", f"current is {current}")], headers={"ETag": etag(model)}
    )


def idempotency(request: Request, who: str, content: Any) -> tuple[str, str] | None:
    """What is kept of an Idempotency-Key: the hash of it and of who sent it, and the hash of the body."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise Problem(400, "Idempotency-Key has 1 to 255 visible characters of ASCII.", "invalid_idempotency_key")
    sent = hashlib.sha256(f"{who}\0{key}".encode()).hexdigest()[:_DIGITS]
    body = hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:_DIGITS]
    return sent, body


def was_sent(model: dict[str, Any], kept: tuple[str, str]) -> bool:
    """Whether the same request has made this model; Problem 422 where it was another request with the same key."""
    metadata = model["metadata"]
    if (metadata.get("labels") or {}).get(IDEMPOTENCY_LABEL) != kept[0]:
        return False
    if (metadata.get("annotations") or {}).get(IDEMPOTENCY_BODY_ANNOTATION) != kept[1]:
        name = f"{metadata['namespace']}/{metadata['name']}"
        raise Problem(
            422, f"This Idempotency-Key was sent with another body, which made {name}.", "idempotency_key_reused"
        )
    return True
