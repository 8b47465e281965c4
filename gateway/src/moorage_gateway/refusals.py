"""What the front answers by itself, where a request goes to no model."""

import logging
from collections.abc import Sequence

from moorage_common.http.message import JSON, Answer, Request
from moorage_common.openai_errors import error_body
from moorage_gateway.alias import Alias
from moorage_gateway.body import BodyError
from moorage_gateway.callers import ReviewError
from moorage_gateway.routing import Model

log = logging.getLogger(__name__)


def unauthorized() -> Answer:
    """There is no valid credential."""
    body = error_body(
        "No valid credential: send `Authorization: Bearer …` with an API key or a Kubernetes token.",
        kind="authentication_error",
        code="invalid_api_key",
    )
    return Answer(401, body, headers=((b"WWW-Authenticate", b'Bearer realm="moorage"'),))


def not_checked(error: ReviewError) -> Answer:
    """The API server did not say who asks, or what they may."""
    log.warning("the API server did not say who asks, or what they may", extra={"error": str(error)[:500]})
    body = error_body(
        "Your credential cannot be checked now. Try again soon.", kind="service_unavailable", code="not_checked"
    )
    return Answer(503, body, headers=((b"Retry-After", b"2"),))


def keys_not_checked() -> Answer:
    """The Secrets of the keys cannot be watched."""
    text = (
        "API keys cannot be checked now: the gateway cannot watch the namespace that has them. "
        "Try again later, or use a Kubernetes token."
    )
    body = error_body(text, kind="service_unavailable", code="not_checked")
    return Answer(503, body, headers=((b"Retry-After", b"5"),))


def no_model(name: str) -> Answer:
    """There is none of that name, or none that they may use: the two look the same."""
    body = error_body(f"There is no model {name[:200]!r} that you may use.", param="model", code="model_not_found")
    return Answer(404, body)


def ambiguous(name: str, found: Sequence[Model | Alias]) -> Answer:
    """There are several of that name."""
    names = ", ".join(sorted(str(one.key) for one in found)[:10])
    return Answer(400, error_body(f"Several models are called {name!r}: say which of {names}.", param="model"))


def not_found(request: Request) -> Answer:
    """There is no such route."""
    return Answer(404, error_body(f"There is no {request.path[:200]} here.", code="unknown_url"))


def wrong_method(request: Request, allowed: str) -> Answer:
    """The route is for another method."""
    body = error_body(f"{request.path[:200]} takes {allowed}, not {request.method}.")
    return Answer(405, body, JSON, headers=((b"Allow", allowed.encode()),))


def bad_body(error: BodyError) -> Answer:
    """The body names no model, or more than one."""
    return Answer(400, error_body(f"The body is not a JSON object with a `model`: {error}.", param="model"))


def full(model: Model) -> Answer:
    """Its pods have as many requests as they take."""
    text = (
        f"All {len(model.backends)} pods of the model {model.name} have as many requests as they take. Try again soon."
    )
    body = error_body(text, kind="rate_limit_error", code="queue_full")
    return Answer(429, body, headers=((b"Retry-After", b"1"),))
