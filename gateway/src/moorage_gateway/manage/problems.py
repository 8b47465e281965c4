"""What is told where a request is not done: OpenAI's error body, with the fields that are wrong.

`{"error": {"message", "type", "param", "code", "fields": [{"field", "message"}]}}`. What the API server says is passed
on in its own words and with its own status: 403 and 404 mean what RBAC says.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from moorage_gateway.kube.errors import ApiError, InvalidNameError, ThrottledError, UnavailableError

log = logging.getLogger(__name__)

JSON: Final = "application/json"
KINDS: Final[Mapping[int, str]] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES: Final[Mapping[str, str]] = {
    "Unauthorized": "invalid_token",
    "Forbidden": "forbidden",
    "NotFound": "not_found",
    "AlreadyExists": "already_exists",
    "Conflict": "conflict",
    "Invalid": "invalid",
    "BadRequest": "invalid",
}
_LONGEST: Final = 4000

Fields = Iterable[tuple[str, str]]


class Problem(Exception):  # noqa: N818 - it is an answer, not a fault of ours
    """A request that is not done, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        fields: Fields = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with `status`; `fields` are names of fields and what is wrong with each."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.fields = tuple(fields)
        self.headers = dict(headers or {})

    def answer(self) -> Response:
        """The answer."""
        return problem_answer(self.status, str(self), self.code, self.fields, self.headers)


def problem_answer(
    status: int, message: str, code: str, fields: Fields = (), headers: Mapping[str, str] | None = None
) -> Response:
    """An error body."""
    told = [{"field": name, "message": text} for name, text in fields]
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    error: dict[str, Any] = {
        "message": message[:_LONGEST],
        "type": "service_unavailable" if status == 503 else kind,
        "param": told[0]["field"] if told else None,
        "code": code,
    }
    if told:
        error["fields"] = told
    more = {"WWW-Authenticate": 'Bearer realm="moorage"'} if status == 401 else {}
    return Response(msgspec.json.encode({"error": error}), status, {**more, **(headers or {})}, JSON)


def told_by_server(error: ApiError) -> Problem:
    """What the API server refused, in its words."""
    if error.status == 401:
        return Problem(
            401, "The API server does not take this token: it is wrong, expired, or for others.", "invalid_token"
        )
    headers = {"Retry-After": f"{max(1, round(error.retry_after))}"} if isinstance(error, ThrottledError) else {}
    code = CODES.get(error.reason, error.reason.lower() or "refused")
    # An unknown field is a 400 of the API server and a text only.
    return Problem(error.status, error.message or str(error), code, fields=error.causes, headers=headers)


def unavailable(error: UnavailableError) -> Problem:
    """The API server did not answer; whether a write was done is not known."""
    log.warning("the API server did not answer", extra={"error": str(error)[:500]})
    headers = {"Retry-After": f"{max(1, round(error.retry_after))}"}
    return Problem(503, "The API server does not answer now. Try again soon.", "api_unavailable", headers=headers)


def as_problem(error: Exception) -> Problem | None:
    """The problem that an exception is to the caller; None where it is a fault of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ApiError):
        return told_by_server(error)
    if isinstance(error, UnavailableError):
        return unavailable(error)
    if isinstance(error, InvalidNameError):
        return Problem(400, f"{error}: names are of a-z, 0-9, '-' and '.'.", "invalid_name")
    return None


def handle_problems(app: FastAPI) -> None:
    """Make every failure an error body; nothing of ours is shown."""

    async def known(_: Request, error: Exception) -> Response:
        problem = as_problem(error)
        assert problem is not None  # noqa: S101 - it is registered for such only
        return problem.answer()

    for kind in (Problem, ApiError, UnavailableError, InvalidNameError):
        app.add_exception_handler(kind, known)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # Neither the input nor the text of a parser's exception: both may have what somebody keeps to themselves.
        fields = [(_place(entry["loc"]), str(entry["msg"])) for entry in error.errors()[:20]]
        message = "; ".join(f"{name}: {text}" for name, text in fields)
        return problem_answer(422, message, "invalid", fields)

    @app.exception_handler(StarletteHTTPException)
    async def plain(request: Request, error: StarletteHTTPException) -> Response:
        code = {404: "unknown_url", 405: "wrong_method"}.get(error.status_code, "invalid")
        text = {
            404: f"There is no {request.url.path[:200]} here; /docs has what there is.",
            405: f"{request.url.path[:200]} does not take {request.method}.",
        }.get(error.status_code, str(error.detail))
        return problem_answer(error.status_code, text, code, headers=error.headers)

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> Response:
        return problem_answer(500, "The server failed to handle the request.", "internal_error")


def _place(loc: tuple[int | str, ...]) -> str:
    # The first part says where a value stood: body, path or query.
    return ".".join(str(part) for part in (loc[1:] or loc))


def strict_json(content: bytes) -> Any:
    """A body, by a reader that takes no NaN, no name twice, no half characters; HTTPException 400 names what it is."""
    try:
        msgspec.json.decode(content)
        found = json.loads(content, object_pairs_hook=_once)
        msgspec.json.encode(found)
    except RecursionError:
        raise HTTPException(400, "The body is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise HTTPException(400, f"The body is not valid JSON: {str(error)[:200]}.") from None
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:100]!r} is there twice")
    return found
