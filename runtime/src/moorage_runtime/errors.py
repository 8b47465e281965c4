"""The failures that the runtime tells by name: of a load, which ends the process; of requests, which are answers."""

import logging
from pathlib import Path
from typing import Any, Final

import msgspec

from moorage_common.facts import LoadError, Termination
from moorage_common.http.message import JSON, Answer
from moorage_common.openai_errors import error_body
from moorage_common.shape import Shape

log = logging.getLogger(__name__)

# By both names: of the InferenceModel's field and of the setting, whichever of them the reader has.
CONTEXT_NAMES: Final = "the context length (spec.contextLength, MAX_INPUT_TOKENS)"
QUANTIZATION_NAMES: Final = "the quantization (spec.quantization, MODEL_QUANTIZATION)"
CONCURRENCY_NAMES: Final = "the concurrency (spec.maxConcurrency, MAX_CONCURRENT_REQUESTS)"
MEMORY_NAMES: Final = "the memory limit (spec.resources.memory)"


class LoadFailure(Exception):  # noqa: N818 - its reasons are a closed list, LoadError
    """The model cannot be loaded, and trying again would not help."""

    def __init__(self, reason: LoadError, message: str, shape: Shape | None = None) -> None:
        """Carry one of the known reasons, a sentence for the person who has to mend it, and what the files say."""
        super().__init__(message)
        self.termination = Termination(reason, message, shape)


def report_termination(termination: Termination, path: Path | None) -> None:
    """Log why the process ends, and leave it where the kubelet looks for it."""
    log.error(termination.message, extra={"reason": termination.reason})
    if path is None:
        return
    try:
        path.write_bytes(termination.encode())
    except OSError as error:
        log.warning("the termination message cannot be written", extra={"path": path, "error": error.strerror})


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> Answer:
    """Refuse a request whose content is wrong."""
    return Answer(400, error_body(message, param=param, code=code))


def not_found(message: str, *, param: str | None = None, code: str | None = None) -> Answer:
    """Refuse a request for what is not there."""
    return Answer(404, error_body(message, param=param, code=code))


def wrong_method(method: str, path: str, allowed: str) -> Answer:
    """Refuse a method that a route does not have."""
    body = error_body(f"{path} takes {allowed}, not {method}.")
    return Answer(405, body, headers=((b"Allow", allowed.encode()),))


def too_many(running: int, waiting: int) -> Answer:
    """Refuse a request that would have to wait behind a full queue."""
    body = error_body(
        f"{running} requests are running and {waiting} are waiting: as many as this model takes. Try again soon.",
        kind="rate_limit_error",
        code="queue_full",
    )
    return Answer(429, body, headers=((b"Retry-After", b"1"),))


def unavailable(message: str, code: str, *, close: bool = False) -> Answer:
    """Refuse a request because there is no engine to take it now."""
    body = error_body(message, kind="service_unavailable", code=code)
    return Answer(503, body, headers=((b"Retry-After", b"1"),), close=close)


def engine_gone(detail: str) -> bytes:
    """Tell a client in the middle of its answer that the engine went."""
    return error_body(
        f"The engine ended before the answer was complete: {detail}.", kind="server_error", code="engine_gone"
    )


def deadline_passed(seconds: float) -> bytes:
    """Tell a client that its answer took too long, time in the queue included."""
    return error_body(
        f"The request was not answered in {seconds:g} s (REQUEST_TIMEOUT) and has been ended.",
        kind="timeout_error",
        code="request_timeout",
    )


def context_exceeded(prompt_tokens: int, context: int, *, at_least: bool = False) -> Answer:
    """Refuse a prompt that is longer than the context, with both numbers."""
    count = f"at least {prompt_tokens}" if at_least else f"{prompt_tokens}"
    return bad_request(
        f"This model's context length is {context} tokens, and the prompt has {count}. "
        f"Shorten the prompt, or raise {CONTEXT_NAMES}.",
        code="context_length_exceeded",
    )


def engine_error(status: int, body: bytes) -> dict[str, Any]:
    """Give the `error` object of an engine's answer; one with the raw text as its message where there is none."""
    try:
        error = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError):
        error = None
    return error if isinstance(error, dict) else {"message": body[:2000].decode(errors="replace") or f"status {status}"}


def plain_engine_error(status: int, error: dict[str, Any]) -> Answer:
    """Make an engine's error ours: OpenAI's body, in which `code` is a word and never a number."""
    code = error.get("code")
    body = error_body(
        str(error.get("message", "The engine refused the request.")),
        kind=str(error.get("type") or ("invalid_request_error" if status < 500 else "server_error")),
        param=error["param"] if isinstance(error.get("param"), str) else None,
        code=code if isinstance(code, str) else None,
    )
    return Answer(status, body, JSON, headers=((b"Retry-After", b"1"),) if status in {429, 503} else ())
