"""What is refused before a handler sees it, where httptools (llhttp) alone would let it pass, and with which answer."""

import re
from typing import Final

from moorage_common.http.message import JSON, Answer, Limits
from moorage_common.openai_errors import error_body

_HOST: Final = re.compile(rb"(?:[\w.~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d*)?", re.ASCII)
"""RFC 3986 3.2.2, without the comma: two Host headers are joined by one."""

_RARE: Final = frozenset({b"transfer-encoding", b"content-encoding", b"expect"})


def target_problem(target: bytes) -> Answer | None:
    """Refuse what is no path: an absolute target names a host for which this is no proxy."""
    if target.startswith(b"/"):
        return None
    return error_answer(400, "The target of a request has to be a path that begins with /.")


def head_problem(headers: dict[bytes, bytes], version: str, limits: Limits, count: int, size: int) -> Answer | None:
    """Find what llhttp lets pass and we do not."""
    if size > limits.head_bytes or count > limits.headers:
        return head_too_large(limits)
    if version not in {"1.0", "1.1"}:
        return error_answer(505, f"HTTP/{version} is not spoken here, HTTP/1.1 is.")
    host = headers.get(b"host")
    if (host is None and version == "1.1") or (host is not None and _HOST.fullmatch(host) is None):
        return error_answer(400, "A request of HTTP/1.1 has exactly one Host header, which is a name and a port.")
    if not _RARE.isdisjoint(headers) and (problem := _rare_problem(headers, version)) is not None:
        return problem
    if int(headers.get(b"content-length", b"0")) > limits.body_bytes:
        return body_too_large(limits)
    return None


def _rare_problem(headers: dict[bytes, bytes], version: str) -> Answer | None:
    encoding = headers.get(b"transfer-encoding")
    if encoding is not None and (encoding.lower() != b"chunked" or version == "1.0"):
        return error_answer(400, "The only Transfer-Encoding taken is chunked, in HTTP/1.1.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        return error_answer(415, "A body with a Content-Encoding is not taken: send it as it is.")
    expected = headers.get(b"expect")
    if expected is not None and expected.lower() != b"100-continue":
        return error_answer(417, "The only expectation known is 100-continue.")
    return None


def without_upgrade(method: bytes, target: bytes, version: str, headers: dict[bytes, bytes]) -> bytes:
    """Write the head of a request again, without its offer of another protocol."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += (name + b": " + value for name, value in headers.items() if name not in {b"upgrade", b"connection"})
    options = (option.strip().lower() for option in headers.get(b"connection", b"").split(b","))
    if b"close" in options:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])


def error_answer(status: int, message: str) -> Answer:
    """Give the answer to a request that cannot be taken; the connection closes after it."""
    return Answer(status, error_body(message), JSON, close=True)


def head_too_large(limits: Limits) -> Answer:
    """Give the answer to a head over the limits."""
    return error_answer(
        431, f"The head of a request has at most {limits.head_bytes} bytes and {limits.headers} headers."
    )


def too_much_at_once() -> Answer:
    """Give the answer to a body for which there is no room beside those of others."""
    body = error_body(
        "Too many large requests are here at once. Try again soon.", kind="service_unavailable", code="overloaded"
    )
    return Answer(503, body, JSON, headers=((b"Retry-After", b"1"),), close=True)


def body_too_large(limits: Limits) -> Answer:
    """Give the answer to a body over the limit."""
    return error_answer(413, f"The body of a request has at most {limits.body_bytes} bytes.")
