"""The error body of OpenAI's API, which every HTTP answer of ours that is not a success carries."""

import msgspec


def error_body(
    message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> bytes:
    """`{"error": {message, type, param, code}}` as JSON; the shape is that of OpenAI's API reference."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
